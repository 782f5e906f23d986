"""Which prompts are trained on: none that the guard asks, and, of the others, those that the start solves sometimes.

Of a prompt that it always or never solves all responses are alike, and teach nothing.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial

import numpy as np
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from qwenops.alignment.measure_config import MeasureConfig
from qwenops.alignment.online.config import OnlineConfig
from qwenops.alignment.pass_rate import sample_questions, verify_answers
from qwenops.contracts.conversation import Conversation
from qwenops.errors import ContractError, StageError
from qwenops.generation.engine import Sampling
from qwenops.generation.in_process import InProcessEngine

_OTHER_DRAWS = 1_000_003


def split_guard_prompts(
    prompts: Sequence[Conversation], measure: MeasureConfig, seed: int
) -> tuple[list[Conversation], list[Conversation]]:
    """The questions that the guard asks, and the prompts that are left to train on.

    Where the guard would take every prompt it takes from one half of them, and asks generated questions beside.

    Args:
        prompts: Training prompts.
        measure: How many questions, and of which kinds.
        seed: Seeds the draw.

    Raises:
        ContractError: no prompt would be left.
    """
    for taken in (prompts, prompts[: len(prompts) // 2]):
        questions = sample_questions(taken, measure, seed, "train")
        asked = {row.instruction for row in questions}
        if others := [row for row in prompts if row.instruction not in asked]:
            return questions, others
    raise ContractError(
        "the guard asks every training prompt, so none is left to train on",
        expected="at least two prompts of different words",
        found=len({row.instruction for row in prompts}),
        action="add prompts to the instructions",
    )


def filter_by_solve_rate(
    start: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Conversation],
    config: OnlineConfig,
    sampling: Sampling,
    beside: Callable[[Callable[[], list[float]]], AbstractContextManager[Callable[[], list[float]]]] = nullcontext,
) -> list[Conversation]:
    """Those of `config.screened_prompts` prompts that `start` solves in a share of its responses within `solved_share`.

    Prompts without a verifier are kept without being asked.

    Args:
        start: The policy that the stage starts from.
        tokenizer: Its tokenizer.
        prompts: To draw from.
        config: How many, and which share.
        sampling: How responses are drawn in the episodes, and how many to a prompt.
        beside: Asks the second half beside the first, as `platform.stage.beside` can; by default after it.

    Raises:
        StageError: no prompt is left.
    """
    chosen = np.random.default_rng(sampling.seed).permutation(len(prompts))[: config.screened_prompts]
    drawn = [prompts[place] for place in chosen]
    asked = [row for row in drawn if row.verifier]
    engine = InProcessEngine(start, tokenizer, batch_tokens=config.measure.batch_tokens)
    middle = len(asked) // 2
    with beside(partial(_solve_rates, engine, asked[middle:], sampling, 2)) as second:
        shares = [*_solve_rates(engine, asked[:middle], sampling, 1), *second()]
    low, high = config.solved_share
    kept = [row for row, share in zip(asked, shares, strict=True) if low <= share <= high]
    kept += [row for row in drawn if not row.verifier]
    if not kept:
        raise StageError(
            "the start solves no prompt now and then",
            expected=f"prompts of which it solves {low:g} to {high:g} of {sampling.n} responses",
            found=f"{sum(share < low for share in shares)} of {len(shares)} solved less often, the others more often",
            action="raise online.screened_prompts or widen online.solved_share",
        )
    return kept


def _solve_rates(engine: InProcessEngine, rows: Sequence[Conversation], sampling: Sampling, half: int) -> list[float]:
    """Share of right responses to each row's prompt, drawn with other seeds than the episodes."""
    other = sampling.model_copy(update={"seed": sampling.seed + half * _OTHER_DRAWS})
    groups = engine.generate([row.prompt for row in rows], other)
    return [
        sum(verify_answers([row] * len(group), [sample.text for sample in group])) / len(group)
        for row, group in zip(rows, groups, strict=True)
    ]
