"""Train the reward model: pre-train on all pairs, fine-tune on the best, measure on held-out pairs."""

import json
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from qwenops.alignment.examples import (
    Pair,
    encode_finished_pair,
    encode_pairs,
    micro_batches,
    pad_id_of,
    pair_stream,
    split_chosen_rejected,
)
from qwenops.alignment.objectives import reward_objective
from qwenops.alignment.reward.config import RewardConfig
from qwenops.alignment.reward.data import balanced_shares, pair_tags, prompt_tags, read_pairs, share_by_tag
from qwenops.alignment.reward_model import RewardModel, RewardScale, save_reward_head, unscaled_rewards
from qwenops.alignment.train import run_on_workers, save_chat_checkpoint, train
from qwenops.contracts.preference import Preference
from qwenops.errors import ContractError
from qwenops.model.checkpoints import load_model, load_tokenizer
from qwenops.platform.stage.handle import Stage
from qwenops.training.parallel import worker_rank


def run(config: RewardConfig, *, checkpoint: Path, ranked: Path, synthesized: Path, stage: Stage) -> None:
    """Train, measure, and publish the reward model (see `alignment.reward_model`).

    Args:
        config: What to do.
        checkpoint: The SFT checkpoint; gives size and start.
        ranked: Preferences from ranking.
        synthesized: Preferences from the automated strategies.
        stage: Where to report and write.
    """
    run_on_workers(stage, learn_preferences, config=config, checkpoint=checkpoint, folders=(ranked, synthesized))


def learn_preferences(config: RewardConfig, checkpoint: Path, folders: Sequence[Path], stage: Stage) -> None:
    """What every worker runs: train in one or two phases, measure after each."""
    tokenizer = load_tokenizer(checkpoint)
    train_rows, heldout_rows = read_pairs(folders, "train"), read_pairs(folders, "heldout")
    pairs, rows = encode_pairs(tokenizer, train_rows, config.max_length_tokens, encode_finished_pair)
    measured = _sample(heldout_rows, config.heldout_pairs, stage.seed)
    held, held_rows = encode_pairs(tokenizer, measured, config.max_length_tokens, encode_finished_pair)
    _refuse_none(pairs, "train")
    _refuse_none(held, "heldout")
    too_long = len(train_rows) - len(rows)
    stage.count(read=len(train_rows), kept=len(rows), dropped={"too_long": too_long} if too_long else {})

    torch.manual_seed(stage.seed)
    model = RewardModel(load_model(checkpoint)).to(worker_rank().kind)
    by_prompt = prompt_tags(folders)
    tags = [pair_tags(row, by_prompt) for row in rows]
    tokens = 0
    for name, chosen, wanted in _phases(config, rows):
        phase = [pairs[i] for i in chosen], [tags[i] for i in chosen]
        tokens += _train_phase(stage, name, model, tokenizer, *phase, wanted, config)
        stage.metric(
            f"pair_accuracy.after_{name}", _accuracy(_margins(model, tokenizer, held, config.training.pair_tokens)[0])
        )
    margins, rewards = _margins(model, tokenizer, held, config.training.pair_tokens)
    model.scale = RewardScale(float(rewards.mean()), float(max(rewards.std(), 1e-6)))
    save_chat_checkpoint(model.policy, tokenizer, stage, checkpoint, tokens)
    save_reward_head(model, stage.out)
    _report(stage, margins, held_rows)


def _phases(config: RewardConfig, rows: Sequence[Preference]) -> list[tuple[str, list[int], int]]:
    """Name, places of the pairs and number of pairs to see of each phase."""
    everything = list(range(len(rows)))
    best = [i for i in everything if not config.quality_strategies or rows[i].strategy in config.quality_strategies]
    if not best:
        raise ContractError(
            "no pairs of the quality strategies",
            expected=", ".join(config.quality_strategies),
            found=", ".join(sorted({row.strategy for row in rows})),
            action="change reward.quality_strategies",
        )
    phases = [("finetuning", best, config.pairs)]
    if config.pretraining == "run":
        phases.insert(0, ("pretraining", everything, config.pretraining_pairs))
    return phases


def _train_phase(
    stage: Stage,
    name: str,
    model: RewardModel,
    tokenizer: PreTrainedTokenizerBase,
    pairs: Sequence[Pair],
    tags: Sequence[Sequence[str]],
    wanted: int,
    config: RewardConfig,
) -> int:
    """Train on `wanted` pairs drawn from `pairs`; returns the tokens trained."""
    shares = balanced_shares(tags, config.tag_cap_share, config.most_repeats) if config.balance == "tags" else None
    even = np.full(len(pairs), 1 / len(pairs))
    drawn = {"raw": share_by_tag(tags, even), "drawn": share_by_tag(tags, even if shares is None else shares)}
    (stage.out / f"tags.{name}.json").write_text(json.dumps(drawn, indent=1), encoding="utf-8")
    loop = config.training.model_copy(update={"steps": max(1, -(-wanted // config.pairs_per_step))})
    result = train(
        stage,
        name,
        model,
        reward_objective,
        lambda start: pair_stream(
            pairs, config.pairs_per_step, pad_id_of(tokenizer), loop.pair_tokens, stage.seed, start, shares
        ),
        loop,
    )
    stage.metric("loss.first", result.first_loss)
    stage.metric("loss.final", result.final_loss)
    stage.metric("tokens_per_second", result.tokens_per_second)
    return result.tokens


@torch.inference_mode()
def _margins(
    model: RewardModel, tokenizer: PreTrainedTokenizerBase, pairs: Sequence[Pair], most_tokens: int
) -> tuple[np.ndarray, np.ndarray]:
    """Reward of chosen less rejected for each pair, in order, and all raw rewards."""
    model.eval()
    order = sorted(range(len(pairs)), key=lambda index: pairs[index].size)
    batches = micro_batches([pairs[index] for index in order], pad_id_of(tokenizer), most_tokens)
    sides = [split_chosen_rejected(unscaled_rewards(model, batch)) for batch in batches]
    chosen, rejected = (torch.cat([side[half] for side in sides]).cpu().numpy() for half in (0, 1))
    margins = np.empty(len(pairs))
    margins[order] = chosen - rejected
    return margins, np.concatenate([chosen, rejected])


def _accuracy(margins: np.ndarray) -> float:
    return float((margins > 0).mean())


def _report(stage: Stage, margins: np.ndarray, rows: Sequence[Preference]) -> None:
    stage.metric("pair_accuracy", _accuracy(margins))
    by_source: dict[str, list[float]] = defaultdict(list)
    for row, margin in zip(rows, margins.tolist(), strict=True):
        by_source[row.strategy].append(margin)
    figures = {
        name: {"pairs": len(found), "accuracy": _accuracy(np.array(found))} for name, found in sorted(by_source.items())
    }
    for name, figure in figures.items():
        stage.metric(f"pair_accuracy.{name}", figure["accuracy"])
    (stage.out / "pair_accuracy.json").write_text(json.dumps(figures, indent=1), encoding="utf-8")
    lines = ["# reward", "", f"Held-out pairs ordered right: {_accuracy(margins):.3f} of {len(margins)}.", ""]
    lines += ["| strategy | pairs | ordered right |", "|---|---|---|"]
    lines += [f"| {name} | {figure['pairs']} | {figure['accuracy']:.3f} |" for name, figure in figures.items()]
    (stage.out / "summary.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _sample(rows: list[Preference], most: int, seed: int) -> list[Preference]:
    chosen = np.random.default_rng(seed).permutation(len(rows))[:most]
    return [rows[index] for index in sorted(chosen.tolist())]


def _refuse_none(pairs: Sequence[Pair], split: str) -> None:
    if not pairs:
        raise ContractError(
            f"no {split} preference pairs",
            expected="at least one that fits max_length_tokens",
            found=0,
            action="look at the pairs that rank and synthesize wrote, or raise max_length_tokens",
        )
