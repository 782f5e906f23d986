"""Fine-tune a checkpoint on demonstrations and measure what it learnt.

The node `sft_seed` trains on the evolved demonstrations alone, so that there is a model to sample from; the
node `sft` adds what people or judges ranked and what was synthesized. The control continues on the old
demonstrations for as many steps, so that a gain is not just more training.
"""

import json
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict
from functools import partial
from pathlib import Path
from zlib import crc32

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from qwenops.alignment.objectives import replay_objective
from qwenops.alignment.pass_rate import PassRate, measure_pass_rate, sample_questions
from qwenops.alignment.sft.config import SftConfig
from qwenops.alignment.sft.data import (
    TrainingSet,
    build_training_set,
    read_demonstrations,
    sft_batches,
    training_config,
)
from qwenops.alignment.train import run_on_workers, save_chat_checkpoint, train
from qwenops.contracts.conversation import Conversation
from qwenops.contracts.gate import conversation_tables, gate
from qwenops.contracts.tokens import TokenShards
from qwenops.errors import RecipeError
from qwenops.model.checkpoints import load_model, load_tokenizer, to_device
from qwenops.platform.stage.beside import beside
from qwenops.platform.stage.handle import Stage
from qwenops.training.config import TrainingConfig
from qwenops.training.fit import FitResult
from qwenops.training.objective import text_objective
from qwenops.training.parallel import worker_rank


def run(
    config: SftConfig,
    *,
    checkpoint: Path,
    demonstrations: Path,
    stage: Stage,
    ranked: Path | None = None,
    synthesized: Path | None = None,
    tokens: Path | None = None,
) -> None:
    """Train, measure, and write a chat checkpoint with `summary.md`, `pass_rate.json` and the data gate's page.

    Args:
        config: What to do.
        checkpoint: Checkpoint to start from.
        demonstrations: Conversations of the instruction stages; also the source of the held-out questions.
        stage: Where to report and write.
        ranked: Demonstrations chosen by ranking, when there are any.
        synthesized: Synthesized demonstrations, when there are any.
        tokens: Pre-training text; needed where `replay_share` asks for some.

    Raises:
        RecipeError: text is to be replayed and there is none.
    """
    seed_rows = read_demonstrations(demonstrations)
    rows = read_demonstrations(demonstrations, ranked, synthesized)
    _gate(rows, stage)
    if config.replay_share and tokens is None:
        raise RecipeError(
            f"{stage.node} has no text to replay",
            expected="the tokens of pre-training, which replay_share takes rows from",
            found=f"replay_share {config.replay_share} and no tokens",
            action="give the stage `tokens`, or set replay_share to 0",
        )
    texts = tokens if config.replay_share else None
    run_on_workers(stage, fine_tune, config=config, checkpoint=checkpoint, seed_rows=seed_rows, rows=rows, tokens=texts)


def fine_tune(
    config: SftConfig,
    checkpoint: Path,
    seed_rows: Sequence[Conversation],
    rows: Sequence[Conversation],
    tokens: Path | None,
    stage: Stage,
) -> None:
    """What every worker runs: train on `rows`, measure, train the control on `seed_rows`."""
    tokenizer, text = load_tokenizer(checkpoint), TokenShards(tokens) if tokens else None
    questions = sample_questions(seed_rows, config.measure, stage.seed)
    data = build_training_set(tokenizer, rows, config)
    stage.count(read=data.read, kept=data.read - sum(data.dropped.values()), dropped=data.dropped)

    loop = training_config(config, data.examples)
    arm = partial(_control, stage, checkpoint, tokenizer, seed_rows, loop, config, questions, text)
    with beside(stage, arm) if config.control == "seed_data" else nullcontext(lambda: None) as control:
        model = to_device(load_model(checkpoint), worker_rank().kind)
        before = measure_pass_rate(model, tokenizer, questions, config.measure, stage.seed)
        result = _train(stage, "sft", model, tokenizer, data, loop, config, text)
        after = measure_pass_rate(model, tokenizer, questions, config.measure, stage.seed)
        save_chat_checkpoint(model, tokenizer, stage, checkpoint, result.tokens, config.max_length_tokens)
        _report(stage, result, data, before, after, control())


def _control(
    stage: Stage,
    checkpoint: Path,
    tokenizer: PreTrainedTokenizerBase,
    seed_rows: Sequence[Conversation],
    loop: TrainingConfig,
    config: SftConfig,
    questions: Sequence[Conversation],
    text: TokenShards | None,
) -> PassRate:
    """The same start, steps and optimiser on the seed demonstrations alone."""
    model = to_device(load_model(checkpoint), worker_rank().kind)
    data = build_training_set(tokenizer, seed_rows, config)
    _train(stage, "control", model, tokenizer, data, loop, config, text)
    return measure_pass_rate(model, tokenizer, questions, config.measure, stage.seed)


def _train(
    stage: Stage,
    name: str,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    data: TrainingSet,
    loop: TrainingConfig,
    config: SftConfig,
    text: TokenShards | None,
) -> FitResult:
    batches = sft_batches(tokenizer, data.examples, config, stage.seed, text, _text_seed(stage))
    objective = replay_objective(config.replay_weight, loop.z_loss) if text else text_objective(loop)
    return train(stage, name, model, objective, batches, loop)


def _text_seed(stage: Stage) -> int:
    """Of the replayed text: the second fine-tuning reads other text than the first, its control the same as itself."""
    return stage.seed + crc32(stage.node.encode())


def _gate(rows: Sequence[Conversation], stage: Stage) -> None:
    tables = conversation_tables([asdict(row) for row in rows if row.is_answered])
    for sentence in gate("conversations.json", *tables, stage.out).failures:
        stage.warn(sentence)


def _report(
    stage: Stage, result: FitResult, data: TrainingSet, before: PassRate, after: PassRate, control: PassRate | None
) -> None:
    stage.metric("loss.first", result.first_loss)
    stage.metric("loss.final", result.final_loss)
    stage.metric("tokens_per_second", result.tokens_per_second)
    stage.metric("pass_rate", after.greedy)
    stage.metric("pass_rate.sampled", after.sampled)
    stage.metric("pass_rate.before", before.greedy)
    stage.metric("pass_rate.prompts", after.prompts)
    if control:
        stage.metric("control.pass_rate", control.greedy)
        stage.metric("control.pass_rate.sampled", control.sampled)
    figures = {"before": asdict(before), "after": asdict(after), "control": asdict(control) if control else None}
    figures["training_rows"] = data.by_source
    (stage.out / "pass_rate.json").write_text(json.dumps(figures, indent=1), encoding="utf-8")
    (stage.out / "summary.md").write_text(_summary(stage.node, figures, after), encoding="utf-8")


def _summary(node: str, figures: dict[str, dict], after: PassRate) -> str:
    lines = [f"# {node}", "", "| policy | greedy | sampled |", "|---|---|---|"]
    lines += [
        f"| {name} | {figures[name]['greedy']:.3f} | {figures[name]['sampled']:.3f} |"
        for name in ("before", "after", "control")
        if figures[name]
    ]
    lines += ["", "## Rows trained on", ""] + [f"- {name}: {n}" for name, n in figures["training_rows"].items()]
    lines += ["", "## Answers", "", "| question | answer | right |", "|---|---|---|"]
    lines += [f"| {question} | {answer!r} | {'yes' if right else 'no'} |" for question, answer, right in after.examples]
    return "\n".join(lines) + "\n"
