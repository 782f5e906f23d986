"""Rejection sampling: many answers to a question with one right answer; the right ones teach (report 4.1.2; RFT).

A question with no right answer gives no demonstration, one with no wrong answer no pair. The report also asks that the
reasoning be judged reasonable; these tasks have an answer and no reasoning, so the verifier's word is the whole
judgement.
"""

from collections.abc import Sequence

from qwenops.contracts.conversation import Conversation
from qwenops.generation.chat import defuse, render_all
from qwenops.generation.engine import Engine
from qwenops.instructions.pairing import make_demonstration, make_pair, pair_split
from qwenops.instructions.synthesize.config import SynthesizeConfig
from qwenops.instructions.synthesize.made import Made
from qwenops.tasks.verifiable import verify

STRATEGY = "rejection_sampling"


def sample_and_reject(rows: Sequence[Conversation], engine: Engine, config: SynthesizeConfig) -> Made:
    """Answer each verifiable instruction n times per round and part right from wrong.

    Args:
        rows: Instructions with a verifier.
        engine: What answers.
        config: Sampling and limits.
    """
    made = Made()
    sampling = config.rejection_sampling
    for row, answers in zip(rows, _answer_in_rounds(rows, engine, config), strict=True):
        provenance = {"model": engine.name, "sampling": sampling.label, "n": len(answers), "judge": "machine:verifier"}
        is_right = {text: verify(row.verifier or {}, text) for text in answers}
        right = [text for text in is_right if is_right[text]]
        wrong = [text for text in is_right if text and not is_right[text]]
        made.judged += len(answers)
        made.accepted += sum(is_right[text] for text in answers)
        split = pair_split(row, config.heldout_share)
        if split == "train":
            made.demonstrations += [
                make_demonstration(row, text, strategy=STRATEGY, provenance=provenance)
                for text in right[: config.max_right_per_prompt]
            ]
        pairs = [(good, bad) for good in right for bad in wrong][: config.max_pairs_per_prompt]
        made.preferences += [
            make_pair(row, good, bad, strategy=STRATEGY, judge="machine:verifier", split=split, provenance=provenance)
            for good, bad in pairs
        ]
    return made


def _answer_in_rounds(rows: Sequence[Conversation], engine: Engine, config: SynthesizeConfig) -> list[list[str]]:
    """All answers of each row: n from the first round, n more from each later one while none was right."""
    answers: list[list[str]] = [[] for _ in rows]
    unsolved = list(range(len(rows)))
    for number in range(config.rejection_rounds):
        sampling = config.rejection_sampling
        sampling = sampling.model_copy(update={"seed": sampling.seed + number})
        groups = engine.generate(render_all(rows[i].prompt for i in unsolved), sampling)
        for i, texts in zip(unsolved, groups, strict=True):
            answers[i] += [defuse(text).strip() for text in texts]
        unsolved = [i for i in unsolved if not any(verify(rows[i].verifier or {}, text) for text in answers[i])]
        if not unsolved:
            break
    return answers
