"""Verifiable tasks: short questions about strings of digits whose one right answer a program computes.

They give post-training something a model of about half a million parameters can learn, and a judge that cannot be
argued with. A task is a chain of steps applied to a string of digits ("381752"), so the same verifier judges a seed
question ("Reverse: 381752") and one made harder by evolution ("Reverse, then drop the first: 381752"). Digits
are single tokens in Qwen's tokenizer, which is why they stand without spaces. House choice: the report names tasks
with a definite final answer (4.1.2) and does not publish its own.

A prompt belongs to the train or the held-out split by a hash of its text, so no held-out prompt can be trained on,
whoever generates it and whenever.
"""

import hashlib
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from qwenops.contracts.conversation import Conversation, Split, answer, ask, conversation_id
from qwenops.errors import ContractError, RecipeError

HELDOUT_SHARE = 0.1


@dataclass(frozen=True)
class Step:
    """One operation on a string of digits, and the words that ask for it at the start of or inside a sentence."""

    apply: Callable[[str], str]
    imperative: str
    keeps_string: bool = True


STEPS: dict[str, Step] = {
    "copy": Step(lambda s: s, "copy"),
    "reverse": Step(lambda s: s[::-1], "reverse"),
    "sort": Step(lambda s: "".join(sorted(s)), "sort"),
    "sort_down": Step(lambda s: "".join(sorted(s, reverse=True)), "sort down"),
    "drop_first": Step(lambda s: s[1:], "drop the first"),
    "drop_last": Step(lambda s: s[:-1], "drop the last"),
    "first": Step(lambda s: s[:1], "give the first", keeps_string=False),
    "last": Step(lambda s: s[-1:], "give the last", keeps_string=False),
    "max": Step(max, "give the largest", keeps_string=False),
    "min": Step(min, "give the smallest", keeps_string=False),
    "count": Step(lambda s: str(len(s)), "count the digits", keeps_string=False),
    "add": Step(lambda s: str(sum(int(part) for part in s.split("+"))), "add", keeps_string=False),
}

# Kind of question -> its steps and the ways it is worded; {} is the string of digits.
PHRASINGS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "copy": (("copy",), ("Copy: {}", "Repeat: {}")),
    "reverse": (("reverse",), ("Reverse: {}", "Write backwards: {}")),
    "sort": (("sort",), ("Sort: {}", "Put in order: {}")),
    "sort_down": (("sort_down",), ("Sort down: {}",)),
    "first": (("first",), ("First digit: {}",)),
    "last": (("last",), ("Last digit: {}",)),
    "max": (("max",), ("Largest digit: {}",)),
    "min": (("min",), ("Smallest digit: {}",)),
    "count": (("count",), ("How many digits: {}",)),
    "passkey": (("copy",), ("The pass key is {}. What is the pass key?",)),
    "add": (("add",), ("Add: {}",)),
}
KINDS = tuple(PHRASINGS)


def generate(
    kind: str, n: int, seed: int, split: Split, *, min_digits: int = 5, max_digits: int = 6
) -> list[Conversation]:
    """Make `n` different answered questions of one kind and split.

    Args:
        kind: One of `KINDS`.
        n: How many.
        seed: Equal seeds give equal rows.
        split: Which side of the prompt hash to draw from.
        min_digits: Shortest string.
        max_digits: Longest string; ten times as many different strings exist per digit.

    Raises:
        RecipeError: an unknown kind, or more rows asked for than there are different prompts of that length.
    """
    if kind not in PHRASINGS:
        raise RecipeError(f"unknown task kind {kind}", expected=", ".join(KINDS), found=kind)
    steps, wordings = PHRASINGS[kind]
    rng = random.Random(f"{seed}/{kind}/{split}")
    rows: dict[str, Conversation] = {}
    for _ in range(50 * n + 1000):
        if len(rows) == n:
            return list(rows.values())
        items = _draw_items(rng, kind, rng.randint(min_digits, max_digits))
        prompt = rng.choice(wordings).format(items)
        if split_of(prompt) == split and prompt not in rows:
            rows[prompt] = task_row(kind, steps, items, prompt)
    raise RecipeError(
        f"cannot make {n} different {split} prompts of kind {kind}",
        expected=f"at most about {len(rows)}",
        found=n,
        action="ask for fewer or allow longer strings",
    )


def task_row(kind: str, steps: Sequence[str], items: str, prompt: str) -> Conversation:
    """The answered row of one task; its split follows from the prompt."""
    verifier = {"kind": kind, "steps": list(steps), "items": items}
    return Conversation(
        id=conversation_id("verifiable", prompt),
        messages=answer(ask(prompt), expected_answer(verifier)),
        tags=(kind,),
        source="verifiable",
        verifier=verifier,
        split=split_of(prompt),
    )


def compose(verifier: Mapping[str, Any], step: str) -> Conversation | None:
    """The same task with one more step, freshly worded and solved; None when a step cannot follow.

    The prompt reads "Reverse, then drop the first: 381752".
    """
    steps = [*verifier["steps"], step]
    chain_is_open = all(STEPS[name].keeps_string for name in steps[:-1])
    if not chain_is_open or steps[-1] == steps[-2] or step in ("copy", "add"):
        return None
    words = ", then ".join(STEPS[name].imperative for name in steps)
    prompt = f"{words[0].upper()}{words[1:]}: {verifier['items']}"
    return task_row("+".join(steps), steps, verifier["items"], prompt)


def expected_answer(verifier: Mapping[str, Any]) -> str:
    """The one right answer, computed from the verifier's steps and items.

    Raises:
        ContractError: the verifier is not one of a verifiable task.
    """
    try:
        text = verifier["items"]
        for name in verifier["steps"]:
            text = STEPS[name].apply(text)
    except (KeyError, TypeError, ValueError) as error:
        raise ContractError(
            "not the verifier of a verifiable task",
            expected='{"kind", "steps", "items"}',
            found=dict(verifier),
            action="run the stage that wrote the row again",
        ) from error
    return text


def verify(verifier: Mapping[str, Any], response: str) -> bool:
    """Whether `response`, surrounding white space apart, is exactly the right answer."""
    return response.strip() == expected_answer(verifier)


def split_of(prompt: str) -> Split:
    """The split a prompt belongs to: held out for about a tenth of all texts, by SHA-256 of the text."""
    value = int.from_bytes(hashlib.sha256(prompt.encode()).digest()[:8], "big") / 2**64
    return "heldout" if value < HELDOUT_SHARE else "train"


def _draw_items(rng: random.Random, kind: str, num_digits: int) -> str:
    if kind == "add":
        return f"{rng.randrange(10 ** (num_digits // 2))}+{rng.randrange(10 ** (num_digits // 2))}"
    return "".join(rng.choice("0123456789") for _ in range(num_digits))
