"""Training objectives of alignment: DPO with an optional likelihood term, the reward pair loss, the reference pass."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from qwenops.alignment.examples import Pair, split_sides
from qwenops.training.batching import Example, pad_batch
from qwenops.training.fit import Batch, Objective
from qwenops.training.loss import IGNORED, dpo_loss, hidden_states, output_weight, reward_pair_loss, token_log_probs

_ROWS = 128


def dpo_objective(beta: float, nll_weight: float) -> Objective:
    """DPO plus `nll_weight` times the chosen responses' mean negative log-likelihood, for `pair_batch` batches."""

    def objective(model: nn.Module, batch: Batch) -> tuple[Tensor, dict[str, float]]:
        sums, counts = response_log_probs(model, batch)
        chosen, rejected = split_sides(sums)
        losses, chosen_reward, rejected_reward = dpo_loss(chosen, rejected, *split_sides(batch["reference"]), beta)
        nll = -chosen.sum() / split_sides(counts)[0].sum()
        margin = chosen_reward - rejected_reward
        facts = {
            "margin": float(margin.mean()),
            "accuracy": float((margin > 0).float().mean()),
            "chosen_reward": float(chosen_reward.mean()),
            "rejected_reward": float(rejected_reward.mean()),
            "nll": float(nll.detach()),
        }
        return losses.mean() + nll_weight * nll, facts

    return objective


def chosen_objective(model: nn.Module, batch: Batch) -> tuple[Tensor, dict[str, float]]:
    """Likelihood of the chosen responses of a pair batch alone: what DPO's control trains on."""
    rows = len(batch["input_ids"]) // 2
    upper = {key: batch[key][:rows] for key in ("input_ids", "labels", "attention_mask")}
    sums, counts = response_log_probs(model, upper)
    return -sums.sum() / counts.sum(), {}


def reward_objective(model: nn.Module, batch: Batch) -> tuple[Tensor, dict[str, float]]:
    """Pair loss of a `RewardModel` on a pair batch."""
    chosen, rejected = split_sides(model(batch["input_ids"], batch["attention_mask"]))
    return reward_pair_loss(chosen, rejected).mean(), {"accuracy": float((chosen > rejected).float().mean())}


def response_log_probs(model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
    """Summed log-probability and number of target tokens of each row, both [rows]."""
    hidden = hidden_states(model, batch["input_ids"], batch.get("attention_mask"))
    sums = token_log_probs(hidden, output_weight(model), batch["labels"]).sum(-1)
    return sums, (batch["labels"] != IGNORED).sum(-1)


@torch.inference_mode()
def log_probs_of(model: nn.Module, examples: Sequence[Example], pad_id: int) -> list[Tensor]:
    """Log-probability of every target token of each example: float [targets] on the CPU, in the order given."""
    model.eval()
    device = next(model.parameters()).device
    order = sorted(range(len(examples)), key=lambda index: len(examples[index].tokens))
    found: dict[int, Tensor] = {}
    for start in range(0, len(order), _ROWS):
        chosen = order[start : start + _ROWS]
        batch = pad_batch([examples[index] for index in chosen], pad_id)
        labels = batch["labels"].to(device)
        hidden = hidden_states(model, batch["input_ids"].to(device), batch["attention_mask"].to(device))
        values = token_log_probs(hidden, output_weight(model), labels).cpu()
        for index, row, mask in zip(chosen, values, batch["labels"] != IGNORED, strict=True):
            found[index] = row[mask]
    return [found[index] for index in range(len(examples))]


def with_reference(model: nn.Module, pairs: Sequence[Pair], pad_id: int) -> list[Pair]:
    """Return `pairs` with their log-probabilities under `model`, so that training needs no second model."""
    chosen = log_probs_of(model, [pair.chosen for pair in pairs], pad_id)
    rejected = log_probs_of(model, [pair.rejected for pair in pairs], pad_id)
    return [
        replace(pair, reference=(float(good.sum()), float(bad.sum())))
        for pair, good, bad in zip(pairs, chosen, rejected, strict=True)
    ]
