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
    """Answer each verifiable instruction n times and part right from wrong.

    Args:
        rows: Instructions with a verifier.
        engine: What answers.
        config: Sampling and limits.
    """
    made = Made()
    sampling = config.rejection_sampling
    provenance = {"model": engine.name, "sampling": sampling.label, "n": sampling.n, "judge": "machine:verifier"}
    for row, texts in zip(rows, engine.generate(render_all(row.prompt for row in rows), sampling), strict=True):
        answers = [defuse(text).strip() for text in texts]
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
            make_pair(
                row, good, bad, strategy=STRATEGY, judge="machine:verifier", split=split, provenance=provenance
            )
            for good, bad in pairs
        ]
    return made
