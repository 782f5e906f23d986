"""Alignment objectives: answers beside replayed text, DPO with a likelihood term, reward pairs; the reference pass."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice

import torch
from torch import Tensor, nn

from qwenops.alignment.examples import split_chosen_rejected
from qwenops.alignment.shared_prompt import hidden_states_at
from qwenops.training.batching import Example, pad_batch
from qwenops.training.loss import (
    cross_entropy_by_token,
    dpo_loss,
    hidden_states,
    output_weight,
    reward_pair_loss,
    token_log_probs,
)
from qwenops.training.precision import Precision, autocast
from qwenops.training.terms import IGNORE_INDEX, Batch, Counts, MetricSums, Objective

_ROWS = 128
PairBatches = Callable[[int], Iterator[list[Batch]]]


def dpo_objective(beta: float, nll_weight: float) -> Objective:
    """DPO plus `nll_weight` times the chosen responses' mean negative log-likelihood, for `pair_batch` batches.

    Two terms: DPO's is a mean over pairs, the likelihood's one over the tokens of the chosen responses.
    """

    def means(model: nn.Module, batch: Batch) -> tuple[Mapping[str, Tensor], MetricSums]:
        sums, counts = response_log_probs(model, batch)
        chosen, rejected = split_chosen_rejected(sums)
        losses, chosen_reward, rejected_reward = dpo_loss(
            chosen, rejected, *split_chosen_rejected(batch["reference"]), beta
        )
        tokens = split_chosen_rejected(counts)[0].sum()
        nll = -chosen.sum() / tokens
        margin = chosen_reward - rejected_reward
        by_pair = {
            "margin": margin,
            "accuracy": (margin > 0).float(),
            "chosen_reward": chosen_reward,
            "rejected_reward": rejected_reward,
        }
        figures = {name: (float(values.sum()), float(len(values))) for name, values in by_pair.items()}
        figures["nll"] = (-float(chosen.sum().detach()), float(tokens))
        return {"pairs": losses.mean(), "chosen": nll_weight * nll}, figures

    return Objective(lambda batch: {"pairs": _pairs(batch), "chosen": _chosen_tokens(batch)}, means)


def replay_objective(weight: float, z_loss: float = 0.0) -> Objective:
    """Mean loss of the answers plus `weight` times that of replayed text, for batches that tell them apart.

    Two terms, so that long texts do not drown short answers: each is a mean over its own targets.
    """

    def split(batch: Batch) -> Iterator[tuple[str, Tensor]]:
        yield "answers", ~batch["replay"]
        yield "replay", batch["replay"]

    def counts(batch: Batch) -> Counts:
        return {name: float((batch["labels"][rows] != IGNORE_INDEX).sum()) for name, rows in split(batch)}

    def means(model: nn.Module, batch: Batch) -> tuple[Mapping[str, Tensor], MetricSums]:
        hidden = hidden_states(model, batch["input_ids"], None, batch["position_ids"])
        found, figures = {}, {}
        for name, rows in split(batch):
            if rows.any():
                loss, by_token = cross_entropy_by_token(
                    hidden[rows], output_weight(model), batch["labels"][rows], z_loss=z_loss
                )
                found[name] = loss * weight if name == "replay" else loss
                figures[f"loss.{name}"] = (float(by_token.sum()), float(len(by_token)))
        return found, figures

    return Objective(counts, means)


def _chosen_means(model: nn.Module, batch: Batch) -> tuple[Mapping[str, Tensor], MetricSums]:
    """Likelihood of the chosen responses of a pair batch alone."""
    rows = len(batch["input_ids"]) // 2
    upper = {key: batch[key][:rows] for key in ("input_ids", "labels", "attention_mask")}
    sums, counts = response_log_probs(model, upper)
    return {"chosen": -sums.sum() / counts.sum()}, {}


def _reward_means(model: nn.Module, batch: Batch) -> tuple[Mapping[str, Tensor], MetricSums]:
    """Pair loss of a `RewardModel` on a pair batch."""
    chosen, rejected = split_chosen_rejected(model(batch))
    right = float((chosen > rejected).sum())
    return {"pairs": reward_pair_loss(chosen, rejected).mean()}, {"accuracy": (right, float(len(chosen)))}


def _pairs(batch: Batch) -> float:
    return len(batch["input_ids"]) / 2


def _chosen_tokens(batch: Batch) -> float:
    return float((split_chosen_rejected(batch["labels"])[0] != IGNORE_INDEX).sum())


def _count_chosen(batch: Batch) -> Counts:
    return {"chosen": _chosen_tokens(batch)}


def _count_pairs(batch: Batch) -> Counts:
    return {"pairs": _pairs(batch)}


# What DPO's control trains on.
chosen_objective = Objective(_count_chosen, _chosen_means)
reward_objective = Objective(_count_pairs, _reward_means)


def response_log_probs(model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
    """Summed log-probability and number of target tokens of each row, both [rows]."""
    labels = batch["labels"]
    targets = labels != IGNORE_INDEX
    values = token_log_probs(hidden_states_at(model, batch, targets), output_weight(model), labels[targets])
    rows = torch.zeros(labels.shape, dtype=values.dtype, device=labels.device).masked_scatter(targets, values)
    return rows.sum(-1), targets.sum(-1)


@torch.inference_mode()
def target_log_probs(model: nn.Module, examples: Sequence[Example], pad_id: int, precision: Precision) -> list[Tensor]:
    """Log-probability of every target token of each example: float [targets] on the CPU, in the order given.

    Args:
        model: Set to eval mode.
        examples: At least one token each.
        pad_id: Fills the rows.
        precision: Of the training that compares with these figures: in another one the same weights differ.
    """
    model.eval()
    device = next(model.parameters()).device
    order = sorted(range(len(examples)), key=lambda index: len(examples[index].tokens))
    found: dict[int, Tensor] = {}
    for start in range(0, len(order), _ROWS):
        chosen = order[start : start + _ROWS]
        batch = pad_batch([examples[index] for index in chosen], pad_id)
        labels = batch["labels"].to(device)
        with autocast(model, precision):
            hidden = hidden_states(model, batch["input_ids"].to(device), batch["attention_mask"].to(device))
            values = token_log_probs(hidden, output_weight(model), labels).cpu()
        for index, row, mask in zip(chosen, values, batch["labels"] != IGNORE_INDEX, strict=True):
            found[index] = row[mask]
    return [found[index] for index in range(len(examples))]


@torch.inference_mode()
def add_reference_log_probs(model: nn.Module, batches: PairBatches, steps: int, precision: Precision) -> PairBatches:
    """`batches` of pairs, their rows' log-probabilities under `model` as it is now beside them.

    They are taken in the very passes that training makes, so that a policy of the same weights has a margin of exactly
    0: in bf16 a row's figure depends on the rows it shares a pass with. Training then needs no second model.

    Args:
        model: The reference; set to eval mode.
        batches: As for `fit`; of several workers each reads its own.
        steps: Steps of the training.
        precision: Of the training.
    """
    model.eval()
    device = next(model.parameters()).device

    def log_probs(batch: Batch) -> Tensor:
        inputs = {key: value.to(device) for key, value in batch.items() if isinstance(value, Tensor)}
        with autocast(model, precision):
            return response_log_probs(model, inputs)[0].cpu()

    found = [[log_probs(batch) for batch in micro] for micro in islice(batches(0), steps)]

    def from_step(start: int) -> Iterator[list[Batch]]:
        for values, micro in zip(found[start:], batches(start), strict=False):
            yield [batch | {"reference": rows} for batch, rows in zip(micro, values, strict=True)]

    return from_step
