"""A chat model grades documents from 0 to 5 by a rubric; its answers are kept on disk, so that no text is graded twice.

The report says that Qwen models filtered low-quality data and not how they were asked. The grades add up points, as the
prompts of published educational filters do, because small models count points better than they judge a whole.
"""

import hashlib
import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path

from qwenops.data.quality.config import RubricConfig
from qwenops.generation.engine import Engine, Prompt, Sampling

RUBRIC = (
    "Grade a text that may be used to train a language model. Start at 0 and add one point for each statement that is"
    " true:\n1. It is running text or a program, not a menu, a list of links or an advertisement.\n2. It can be"
    " understood without the page it was taken from.\n3. It holds facts, explanations, or a story that hangs"
    " together.\n4. It is written with care: correct, complete, without needless repetition.\n5. Somebody could learn a"
    " subject from it."
)
_QUESTION = "{rubric}\n\nText:\n{text}\n\nAnswer with the number of points alone, 0 to 5."
_GRADE = re.compile(r"(?<![\d.])[0-5](?![\d.]*\d)")
_BATCH = 64


class RubricScorer:
    """Grades texts with an engine.

    Args:
        engine: The model that grades.
        config: How much of a text it reads, and how long it may answer.
        cache: Folder for the answers; a file in it belongs to one model and one rubric.
    """

    def __init__(self, engine: Engine, config: RubricConfig, cache: Path) -> None:
        self.engine, self.config = engine, config
        self.sampling = Sampling(max_new_tokens=config.max_new_tokens)
        cache.mkdir(parents=True, exist_ok=True)
        self.path = cache / f"{_digest(engine.name, RUBRIC, _QUESTION, str(config.max_new_tokens))[:16]}.jsonl"
        self.answers = _read_answers(self.path)

    def grade(self, texts: Sequence[str], advance: Callable[[int], None] = lambda _: None) -> list[float | None]:
        """The grade of each text; None where the answer holds no number from 0 to 5."""
        cut = [text[: self.config.num_characters] for text in texts]
        keys = [_digest(text) for text in cut]
        new = {key: text for key, text in zip(keys, cut, strict=True) if key not in self.answers}
        missing = list(new)
        for start in range(0, len(missing), _BATCH):
            some = missing[start : start + _BATCH]
            prompts = [_prompt(new[key]) for key in some]
            replies = zip(some, self.engine.generate(prompts, self.sampling), strict=True)
            # A lost answer is asked for again by the next run.
            self._keep({key: group[0].text for key, group in replies if group[0].finish != "lost"})
            advance(len(some))
        return [read_grade(self.answers.get(key, "")) for key in keys]

    def _keep(self, answers: dict[str, str]) -> None:
        self.answers |= answers
        with self.path.open("a", encoding="utf-8") as stream:
            for key, answer in answers.items():
                stream.write(json.dumps({"key": key, "answer": answer}, ensure_ascii=False) + "\n")


def read_grade(answer: str) -> float | None:
    """The first number from 0 to 5 in an answer."""
    found = _GRADE.search(answer)
    return float(found.group()) if found else None


def _prompt(text: str) -> Prompt:
    return [{"role": "user", "content": _QUESTION.format(rubric=RUBRIC, text=text)}]


def _digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode("utf-8", "surrogatepass")).hexdigest()


def _read_answers(path: Path) -> dict[str, str]:
    answers: dict[str, str] = {}
    if path.exists():
        for line in path.read_text(encoding="utf-8").splitlines():
            # The last line of a killed stage may be cut; its text is graded again.
            try:
                row = json.loads(line)
            except ValueError:
                continue
            answers[row["key"]] = row["answer"]
    return answers
