"""The pass rate of a policy: held-out verifiable questions answered right, greedily and by sampling.

The alignment stages are judged by a verifier and never by the reward model they optimise, which a policy learns to
please (see the online stage's guard). All stages of a run ask the same questions: those that depend on the
demonstrations, the config and the run's seed only.
"""

import random
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from qwenops.alignment.measure_config import MeasureConfig
from qwenops.contracts.conversation import Conversation, Split
from qwenops.errors import ContractError
from qwenops.generation.engine import Sampling
from qwenops.generation.in_process import InProcessEngine
from qwenops.tasks.verifiable import KINDS, generate, verify

_TOP_UPS = 5
_OTHER_SEEDS = 1_000_003


@dataclass(frozen=True)
class PassRate:
    """What a policy got right.

    Attributes:
        greedy: Share of questions whose likeliest answer is right.
        sampled: Share whose sampled answer is right.
        prompts: Questions asked.
        by_kind: Greedy share by task kind.
        mean_characters: Mean length of the greedy answers, in characters.
        examples: A few (question, answer, right) for people to read.
    """

    greedy: float
    sampled: float
    prompts: int
    by_kind: dict[str, float]
    mean_characters: float
    examples: tuple[tuple[str, str, bool], ...] = field(repr=False, default=())


def sample_questions(
    rows: Sequence[Conversation], config: MeasureConfig, seed: int, split: Split = "heldout"
) -> list[Conversation]:
    """Draw `config.prompts` verifiable questions of one split.

    Args:
        rows: Demonstrations; their verifiable rows of the split are drawn from first.
        config: How many and which kinds. Missing ones are generated, from the kinds the rows hold.
        seed: Seeds the draw.
        split: Which side of the prompt hash.

    Raises:
        ContractError: no verifiable kind to ask.
    """
    verifiable = [row for row in rows if row.verifier and (not config.kinds or _kind(row) in config.kinds)]
    chosen = {row.instruction: row for row in verifiable if row.split == split}
    if len(chosen) < config.prompts:
        kinds = sorted({_kind(row) for row in verifiable} & set(KINDS)) or sorted(set(config.kinds) & set(KINDS))
        if not kinds:
            raise ContractError(
                "there is nothing verifiable to measure",
                expected=f"{config.prompts} {split} questions of tasks",
                found=f"{len(chosen)}",
                action="add verifiable rows to the instructions, or name kinds in `measure`",
            )
        _top_up(chosen, kinds, config.prompts, seed, split)
    drawn = sorted(chosen.values(), key=lambda row: row.instruction)
    random.Random(f"{seed}/questions").shuffle(drawn)
    return drawn[: config.prompts]


def measure_pass_rate(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    questions: Sequence[Conversation],
    config: MeasureConfig,
    seed: int,
) -> PassRate:
    """Ask `questions` greedily and once by sampling, and verify the answers."""
    engine = InProcessEngine(model, tokenizer, batch_tokens=config.batch_tokens)
    sampled = Sampling(max_new_tokens=config.max_new_tokens, temperature=config.temperature, seed=seed)
    answers = greedy_answers(model, tokenizer, questions, config)
    right = verify_answers(questions, answers)
    drawn = verify_answers(
        questions, [samples[0].text for samples in engine.generate([row.prompt for row in questions], sampled)]
    )
    by_kind: dict[str, list[bool]] = defaultdict(list)
    for row, passed in zip(questions, right, strict=True):
        by_kind[_kind(row)].append(passed)
    return PassRate(
        greedy=sum(right) / len(right),
        sampled=sum(drawn) / len(drawn),
        prompts=len(questions),
        by_kind={kind: sum(passed) / len(passed) for kind, passed in sorted(by_kind.items())},
        mean_characters=sum(map(len, answers)) / len(answers),
        examples=tuple(zip((row.instruction for row in questions[:20]), answers[:20], right[:20], strict=True)),
    )


def _top_up(chosen: dict[str, Conversation], kinds: Sequence[str], wanted: int, seed: int, split: Split) -> None:
    """Add generated questions of every kind in turn until there are `wanted`; some draws repeat what is there."""
    for attempt in range(_TOP_UPS):
        missing = wanted - len(chosen)
        if missing <= 0:
            return
        for kind in kinds:
            rows = generate(kind, -(-missing // len(kinds)), seed + _OTHER_SEEDS + attempt, split)
            chosen.update({row.instruction: row for row in rows})


def greedy_answers(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, questions: Sequence[Conversation], config: MeasureConfig
) -> list[str]:
    """Each question's greedy answer."""
    engine = InProcessEngine(model, tokenizer, batch_tokens=config.batch_tokens)
    answers = engine.generate([row.prompt for row in questions], Sampling(max_new_tokens=config.max_new_tokens))
    return [samples[0].text for samples in answers]


def verify_answers(questions: Sequence[Conversation], answers: Sequence[str]) -> list[bool]:
    """Whether each answer is the right one."""
    return [verify(row.verifier or {}, answer) for row, answer in zip(questions, answers, strict=True)]


def _kind(row: Conversation) -> str:
    return str((row.verifier or {}).get("kind", ""))
