"""Offline DPO on the compiled preference pairs, beside a control that sees the chosen responses only."""

import json
from collections import Counter
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict
from functools import partial
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from qwenops.alignment.dpo.config import DpoConfig
from qwenops.alignment.examples import Pair, encode_pairs, pad_id_of, pair_stream
from qwenops.alignment.objectives import PairBatches, add_reference_log_probs, chosen_objective, dpo_objective
from qwenops.alignment.pass_rate import PassRate, measure_pass_rate, sample_questions
from qwenops.alignment.train import run_on_workers, save_chat_checkpoint, train
from qwenops.contracts.conversation import Conversation, read_conversations
from qwenops.contracts.preference import Preference, read_preferences
from qwenops.errors import ContractError
from qwenops.model.checkpoints import load_model, load_tokenizer, to_device
from qwenops.platform.stage.beside import beside
from qwenops.platform.stage.handle import Stage
from qwenops.training.config import TrainingConfig
from qwenops.training.fit import FitResult
from qwenops.training.parallel import worker_rank


def run(
    config: DpoConfig, *, checkpoint: Path, ranked: Path, synthesized: Path, demonstrations: Path, stage: Stage
) -> None:
    """Train, measure, and publish the policy with `summary.md` and `pass_rate.json`.

    Args:
        config: What to do.
        checkpoint: The SFT checkpoint: start and reference.
        ranked: Preferences from ranking.
        synthesized: Preferences from the automated strategies.
        demonstrations: Source of the held-out questions.
        stage: Where to report and write.
    """
    run_on_workers(
        stage,
        learn_preferences,
        config=config,
        checkpoint=checkpoint,
        folders=(ranked, synthesized),
        demonstrations=demonstrations,
    )


def learn_preferences(
    config: DpoConfig, checkpoint: Path, folders: Sequence[Path], demonstrations: Path, stage: Stage
) -> None:
    """What every worker runs: train on pairs, measure, train the control on their chosen sides."""
    tokenizer = load_tokenizer(checkpoint)
    rows = _read_pairs(folders, config.strategies)
    pairs, kept = encode_pairs(tokenizer, rows, config.max_length_tokens)
    too_long = len(rows) - len(kept)
    stage.count(read=len(rows), kept=len(kept), dropped={"too_long": too_long} if too_long else {})
    if not pairs:
        raise ContractError(
            "no preference pairs to train on",
            expected="pairs that fit",
            found=f"{too_long} too long",
            action="look at the pairs that rank and synthesize wrote, or raise max_length_tokens",
        )
    questions = sample_questions(read_conversations(demonstrations), config.measure, stage.seed)
    loop = _loop(config, len(pairs))

    batches = _batches(pairs, tokenizer, loop, config, stage.seed)
    arm = partial(_control, stage, checkpoint, batches, tokenizer, loop, config, questions)
    with beside(stage, arm) if config.control == "chosen_only" else nullcontext(lambda: None) as control:
        model = to_device(load_model(checkpoint), worker_rank().kind)
        before = measure_pass_rate(model, tokenizer, questions, config.measure, stage.seed)
        referenced = add_reference_log_probs(model, batches, loop.steps, loop.precision)
        result = train(stage, "dpo", model, dpo_objective(config.beta, config.nll_weight), referenced, loop)
        after = measure_pass_rate(model, tokenizer, questions, config.measure, stage.seed)
        save_chat_checkpoint(model, tokenizer, stage, checkpoint, result.tokens)
        _report(stage, result, kept, before, after, control())


def _read_pairs(folders: Sequence[Path], strategies: Sequence[str]) -> list[Preference]:
    rows = {row.id: row for folder in folders for row in read_preferences(folder, "train")}
    return [row for row in rows.values() if not strategies or row.strategy in strategies]


def _loop(config: DpoConfig, num_pairs: int) -> TrainingConfig:
    if config.budget == "steps":
        return config.training
    steps = max(1, -(-num_pairs * config.epochs // config.pairs_per_step))
    return config.training.model_copy(update={"steps": steps})


def _batches(
    pairs: Sequence[Pair], tokenizer: PreTrainedTokenizerBase, loop: TrainingConfig, config: DpoConfig, seed: int
) -> PairBatches:
    pad_id = pad_id_of(tokenizer)
    return lambda start: pair_stream(pairs, config.pairs_per_step, pad_id, loop.pair_tokens, seed, start)


def _control(
    stage: Stage,
    checkpoint: Path,
    batches: PairBatches,
    tokenizer: PreTrainedTokenizerBase,
    loop: TrainingConfig,
    config: DpoConfig,
    questions: Sequence[Conversation],
) -> PassRate:
    """The same start, steps, order and optimiser, learning the chosen responses alone."""
    model = to_device(load_model(checkpoint), worker_rank().kind)
    train(stage, "control", model, chosen_objective, batches, loop)
    return measure_pass_rate(model, tokenizer, questions, config.measure, stage.seed)


def _report(
    stage: Stage,
    result: FitResult,
    rows: Sequence[Preference],
    before: PassRate,
    after: PassRate,
    control: PassRate | None,
) -> None:
    stage.metric("loss.first", result.first_loss)
    stage.metric("loss.final", result.final_loss)
    stage.metric("tokens_per_second", result.tokens_per_second)
    stage.metric("pass_rate", after.greedy)
    stage.metric("pass_rate.sampled", after.sampled)
    stage.metric("pass_rate.before", before.greedy)
    stage.metric("pass_rate.before_sampled", before.sampled)
    stage.metric("pass_rate.prompts", after.prompts)
    if control:
        stage.metric("control.pass_rate", control.greedy)
        stage.metric("control.pass_rate.sampled", control.sampled)
    figures = {
        "before": asdict(before),
        "after": asdict(after),
        "control": asdict(control) if control else None,
        "training_pairs": dict(sorted(Counter(row.strategy for row in rows).items())),
    }
    (stage.out / "pass_rate.json").write_text(json.dumps(figures, indent=1), encoding="utf-8")
    (stage.out / "summary.md").write_text(_summary(figures), encoding="utf-8")


def _summary(figures: dict) -> str:
    lines = ["# dpo", "", "| policy | greedy | sampled |", "|---|---|---|"]
    lines += [
        f"| {name} | {figures[name]['greedy']:.3f} | {figures[name]['sampled']:.3f} |"
        for name in ("before", "after", "control")
        if figures[name]
    ]
    lines += ["", "## Pairs trained on", ""] + [f"- {name}: {n}" for name, n in figures["training_pairs"].items()]
    return "\n".join(lines) + "\n"
