"""Annotation tasks for people: written as JSON lines, rankings read back.

Responses are shown under letters in an order drawn anew for each person and task, so that position cannot decide.
The order follows from seed, task and person, so nothing secret has to be kept beside the tasks.

A task line:   {"task": id, "annotator": "1", "prompt": text, "responses": {"A": text, "B": text, ...}, "texts": digest}
A ranking line: {"task": id, "annotator": "1", "texts": digest, "ranking": [["B"], ["A", "C"]], "acceptable": ["B"]}

A ranking speaks of letters, so it carries the digest of the texts that stood under them: letters of responses that were
drawn again since would be other texts.
"""

import hashlib
import json
import random
import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from qwenops.contracts.conversation import read_json_lines
from qwenops.errors import ContractError

TASKS = "annotation_tasks.jsonl"
_HOW = f"have the tasks of {TASKS} ranked"


@dataclass(frozen=True)
class AnnotatedRanking:
    """One person's view of one task: a rank per response, and whether each meets the acceptance criteria."""

    ranks: tuple[int, ...]
    acceptable: tuple[bool, ...]


def shown_order(task: str, annotator: str, size: int, seed: int) -> list[int]:
    """Places of the responses in the order this person sees them."""
    return random.Random(f"{seed}/{task}/{annotator}").sample(range(size), size)


def write_tasks(
    prompts: Mapping[str, str], responses: Mapping[str, Sequence[str]], annotators: int, seed: int, out: Path
) -> int:
    """Write one task per instruction and person; returns how many."""
    number = 0
    with (out / TASKS).open("w", encoding="utf-8") as stream:
        for task, prompt in prompts.items():
            for annotator in map(str, range(1, annotators + 1)):
                order = shown_order(task, annotator, len(responses[task]), seed)
                shown = {string.ascii_uppercase[i]: responses[task][place] for i, place in enumerate(order)}
                line = {"task": task, "annotator": annotator, "prompt": prompt, "responses": shown}
                line["texts"] = digest_of(prompt, list(shown.values()))
                stream.write(json.dumps(line, ensure_ascii=False) + "\n")
                number += 1
    return number


def digest_of(prompt: str, shown: Sequence[str]) -> str:
    """Digest of what a person sees: the prompt and the responses in the order of their letters."""
    return hashlib.sha256(json.dumps([prompt, *shown]).encode()).hexdigest()[:16]


def read_rankings(
    path: Path, prompts: Mapping[str, str], responses: Mapping[str, Sequence[str]], seed: int
) -> dict[str, dict[str, AnnotatedRanking]]:
    """Task to person to ranking, with the shown order undone.

    Args:
        path: JSON lines of rankings.
        prompts: As given to `write_tasks`.
        responses: As given to `write_tasks`.
        seed: As given to `write_tasks`.

    Raises:
        ContractError: a line names an unknown task, was made for other texts, or does not rank every response exactly
            once; or there is no line.
    """
    judged: dict[str, dict[str, AnnotatedRanking]] = {}
    for where, line in read_json_lines(path):
        task, annotator = line.get("task"), str(line.get("annotator"))
        if not isinstance(task, str) or task not in responses:
            raise ContractError(
                f"{where} ranks a task of another run",
                expected="a task of annotation_tasks.jsonl",
                found=task,
                action="export the tasks again and rank those",
            )
        order = shown_order(task, annotator, len(responses[task]), seed)
        texts = digest_of(prompts[task], [responses[task][place] for place in order])
        if line.get("texts") != texts:
            raise ContractError(
                f"{where} ranks other texts than the responses of this run",
                expected=f'"texts": "{texts}", as {TASKS} has it for this task and annotator',
                found=line.get("texts", "a ranking without texts"),
                action="copy texts from the task; if the responses were drawn again since (another model, seed or "
                "strategy), unset annotations, run again and have the new tasks ranked",
            )
        letters = list(string.ascii_uppercase[: len(order)])
        groups = line.get("ranking", [])
        if sorted(letter for group in groups for letter in group) != letters:
            raise ContractError(f"{where} does not rank every response once", expected=", ".join(letters), found=groups)
        ranks, acceptable = [0] * len(letters), [False] * len(letters)
        for rank, group in enumerate(groups, start=1):
            for letter in group:
                ranks[order[letters.index(letter)]] = rank
        for letter in line.get("acceptable", []):
            acceptable[order[letters.index(letter)]] = True
        judged.setdefault(task, {})[annotator] = AnnotatedRanking(tuple(ranks), tuple(acceptable))
    if not judged:
        raise ContractError(f"{path} ranks nothing", expected="a ranking per line", found="no line", action=_HOW)
    return judged
