"""Machine judges of responses, labelled as such: the verifier where there is one, rules elsewhere.

They stand in for people and for a strong language model. A verifiable task's judge knows the answer and grades wrong
answers by how near they come, so that several wrong responses can still be ranked. The rules for open instructions see
form only: they reward a finished text in the right script that neither repeats itself nor the question.
"""

import re

from rapidfuzz.distance import Levenshtein

from qwenops.contracts.conversation import Conversation
from qwenops.tasks.verifiable import expected_answer, verify

MACHINE_JUDGE = "machine:verifier+rules"
SECOND_JUDGE = "machine:edit-distance"

_NEAR_MISS = 0.5  # the most a wrong answer can get, so that right is always above wrong
_HAN = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]")
_SENTENCE_END = re.compile(r"[.!?。！？)\"'»”]\s*$")


def judge(row: Conversation, response: str) -> float:
    """A grade in [0, 1]; 1 is right (verifier) or passes every rule."""
    if row.verifier is not None:
        return 1.0 if verify(row.verifier, response) else _NEAR_MISS * _places_right(row, response)
    return judge_form(row.instruction, response)


def second_judge(row: Conversation, response: str) -> float:
    """An independent grade in [0, 1], to measure agreement: edit distance to the right answer, or to form only."""
    if row.verifier is not None:
        return Levenshtein.normalized_similarity(response.strip(), expected_answer(row.verifier))
    return min(len(response.split()), 20) / 20 * (1 - _repetition(response))


def judge_form(instruction: str, response: str) -> float:
    """Share of the rules of form a response to an open instruction passes."""
    text = response.strip()
    rules = (
        bool(text),
        bool(_SENTENCE_END.search(text)),
        bool(_HAN.search(text)) == bool(_HAN.search(instruction)),
        bool(text) and _repetition(text) < 0.5,
        bool(text) and Levenshtein.normalized_similarity(text, instruction) < 0.8,
    )
    return sum(rules) / len(rules)


def _places_right(row: Conversation, response: str) -> float:
    right, given = expected_answer(row.verifier or {}), response.strip()
    same = sum(a == b for a, b in zip(right, given, strict=False))
    return same / max(len(right), len(given), 1)


def _repetition(text: str) -> float:
    """Share of words that occurred before; characters where there are no spaces."""
    parts = text.split() if " " in text else list(text)
    return 1 - len(set(parts)) / len(parts) if parts else 0.0
