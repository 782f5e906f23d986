"""The language-modelling objective and its evaluation, shared by pre-training, extension, upcycling and SFT."""

from collections.abc import Callable, Iterable, Mapping
from functools import partial

import torch
from torch import Tensor, nn

from qwenops.training.config import TrainingConfig
from qwenops.training.loss import chunked_cross_entropy, cross_entropy_by_token, hidden_states, output_weight
from qwenops.training.terms import IGNORE_INDEX, Batch, Counts, MetricSums, Objective, count_targets

TokenCallback = Callable[[int], None]


def text_objective(config: TrainingConfig) -> Objective:
    """The language-modelling objective with the z-loss that `config` asks for."""
    return Objective(_targets, partial(_text_means, z_loss=config.z_loss)) if config.z_loss else language_modelling


def _targets(batch: Batch) -> Counts:
    return {"text": count_targets(batch)}


def _text_means(model: nn.Module, batch: Batch, z_loss: float = 0.0) -> tuple[Mapping[str, Tensor], MetricSums]:
    """Weighted next-token loss of a batch with input_ids, labels and, where it has them, weights, masks, positions.

    A batch may say where its rows come from: `domains`, int64 [rows], numbers into `domain_names`. The figures then
    hold `loss.<name>`, the loss of the domain's targets, unweighted.
    """
    hidden = hidden_states(model, batch["input_ids"], batch.get("attention_mask"), batch.get("position_ids"))
    loss, by_token = cross_entropy_by_token(
        hidden, output_weight(model), batch["labels"], batch.get("weights"), z_loss=z_loss
    )
    return {"text": loss}, _by_domain(batch, by_token) if "domains" in batch else {}


language_modelling = Objective(_targets, _text_means)


@torch.no_grad()
def mean_loss(model: nn.Module, batches: Iterable[Batch], on_tokens: TokenCallback | None = None) -> float:
    """Mean unweighted loss (nats per target token) over `batches`, in the model's own precision.

    `on_tokens` hears of the tokens of every batch that is done.
    """
    model.eval()
    total, targets = 0.0, 0
    device = next(model.parameters()).device
    for batch in batches:
        inputs = {key: value.to(device) for key, value in batch.items() if isinstance(value, Tensor)}
        hidden = hidden_states(model, inputs["input_ids"], inputs.get("attention_mask"), inputs.get("position_ids"))
        count = int((inputs["labels"] >= 0).sum())
        total += float(chunked_cross_entropy(hidden, output_weight(model), inputs["labels"])) * count
        targets += count
        if on_tokens:
            on_tokens(inputs["input_ids"].numel())
    return total / max(targets, 1)


@torch.no_grad()
def loss_by_position(model: nn.Module, batches: Iterable[Batch], on_tokens: TokenCallback | None = None) -> Tensor:
    """Mean loss (nats per token) at every place of a row, float64 [length]; their mean is `mean_loss`.

    Args:
        model: Set to eval mode; computes in its own precision.
        batches: Rows of one length whose every token is a target, as `batching.text_batch` makes them.
        on_tokens: Hears of the tokens of every batch that is done.
    """
    model.eval()
    device = next(model.parameters()).device
    sums, rows = list[Tensor](), 0
    for batch in batches:
        ids, labels = (batch[name].to(device) for name in ("input_ids", "labels"))
        by_token = cross_entropy_by_token(hidden_states(model, ids), output_weight(model), labels)[1]
        sums.append(by_token.view_as(labels).double().sum(0).cpu())
        rows += len(ids)
        if on_tokens:
            on_tokens(ids.numel())
    return torch.stack(sums).sum(0) / rows


def _by_domain(batch: Batch, by_token: Tensor) -> MetricSums:
    targets = batch["labels"] != IGNORE_INDEX
    domain = batch["domains"][:, None].expand_as(targets)[targets]
    sums = torch.bincount(domain, by_token, minlength=len(batch["domain_names"])).tolist()
    counts = torch.bincount(domain, minlength=len(batch["domain_names"])).tolist()
    return {f"loss.{name}": (sums[i], counts[i]) for i, name in enumerate(batch["domain_names"]) if counts[i]}
