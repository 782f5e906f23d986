"""The language-modelling objective and its evaluation, shared by pre-training, extension, upcycling and SFT."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from qwenops.training.fit import Batch
from qwenops.training.loss import chunked_cross_entropy, hidden_states, output_weight


def language_modelling(model: nn.Module, batch: Batch) -> tuple[Tensor, dict[str, float]]:
    """Weighted next-token loss of a batch with input_ids, labels and, where it has them, weights, masks, positions."""
    hidden = hidden_states(model, batch["input_ids"], batch.get("attention_mask"), batch.get("position_ids"))
    return chunked_cross_entropy(hidden, output_weight(model), batch["labels"], batch.get("weights")), {}


@torch.no_grad()
def mean_loss(model: nn.Module, batches: Iterable[Batch]) -> float:
    """Mean unweighted loss (nats per target token) over `batches`, in the model's own precision."""
    model.eval()
    total, targets = 0.0, 0
    device = next(model.parameters()).device
    for batch in batches:
        inputs = {key: value.to(device) for key, value in batch.items() if isinstance(value, Tensor)}
        hidden = hidden_states(model, inputs["input_ids"], inputs.get("attention_mask"), inputs.get("position_ids"))
        count = int((inputs["labels"] >= 0).sum())
        total += float(chunked_cross_entropy(hidden, output_weight(model), inputs["labels"])) * count
        targets += count
    return total / max(targets, 1)
