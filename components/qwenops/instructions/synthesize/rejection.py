"""Rejection sampling: many answers to a question with one right answer; the right ones teach (report 4.1.2; RFT).

A question with no right answer gives no demonstration, one with no wrong answer no pair. The report also asks that the
reasoning be judged reasonable; these tasks have an answer and no reasoning, so the verifier's word is the whole
judgement.
"""

from collections.abc import Sequence

from qwenops.contracts.conversation import Conversation
from qwenops.generation.engine import Engine, Sample, count_unfinished
from qwenops.instructions.pairing import make_demonstration, make_pair, pair_split
from qwenops.instructions.synthesize.config import SynthesizeConfig
from qwenops.instructions.synthesize.result import SynthesisResult
from qwenops.tasks.verifiable import verify

STRATEGY = "rejection_sampling"


def sample_and_reject(rows: Sequence[Conversation], engine: Engine, config: SynthesizeConfig) -> SynthesisResult:
    """Answer each verifiable instruction n times per round and part right from wrong.

    Args:
        rows: Instructions with a verifier.
        engine: What answers.
        config: Sampling and limits.
    """
    made = SynthesisResult()
    sampling = config.rejection_sampling
    for row, answers in zip(rows, _answer_in_rounds(rows, engine, config), strict=True):
        provenance = {"model": engine.name, "sampling": sampling.label, "n": len(answers), "judge": "machine:verifier"}
        distinct = _distinct(answers)
        right = [answer for answer in distinct if _is_right(row, answer)]
        # What says the right thing and was cut is neither: it did not end.
        wrong = [answer for answer in distinct if not verify(row.verifier or {}, answer.text)]
        made.judged += len(answers)
        made.accepted += sum(_is_right(row, answer) for answer in answers)
        made.unfinished += count_unfinished(answers)
        split = pair_split(row, config.heldout_share)
        if split == "train":
            made.demonstrations += [
                make_demonstration(row, answer, strategy=STRATEGY, provenance=provenance)
                for answer in right[: config.max_right_per_prompt]
            ]
        pairs = [(good, bad) for good in right for bad in wrong][: config.max_pairs_per_prompt]
        made.preferences += [
            make_pair(row, good, bad, strategy=STRATEGY, judge="machine:verifier", split=split, provenance=provenance)
            for good, bad in pairs
        ]
    return made


def _is_right(row: Conversation, answer: Sample) -> bool:
    return answer.is_whole and verify(row.verifier or {}, answer.text)


def _distinct(answers: Sequence[Sample]) -> list[Sample]:
    """One answer of each text, empty ones left out; of a text that was drawn whole and cut the whole one."""
    found: dict[str, Sample] = {}
    for answer in answers:
        text = answer.text.strip()
        if text and (text not in found or answer.is_whole > found[text].is_whole):
            found[text] = answer
    return list(found.values())


def _answer_in_rounds(rows: Sequence[Conversation], engine: Engine, config: SynthesizeConfig) -> list[list[Sample]]:
    """All answers of each row: n from the first round, n more from each later one while none was right."""
    answers: list[list[Sample]] = [[] for _ in rows]
    unsolved = list(range(len(rows)))
    for number in range(config.rejection_rounds):
        sampling = config.rejection_sampling
        sampling = sampling.model_copy(update={"seed": sampling.seed + number})
        groups = engine.generate([rows[i].prompt for i in unsolved], sampling)
        for i, samples in zip(unsolved, groups, strict=True):
            answers[i] += samples
        unsolved = [i for i in unsolved if not any(_is_right(rows[i], answer) for answer in answers[i])]
        if not unsolved:
            break
    return answers
