"""Watch a mixture-of-experts model's routers: the load-balancing loss and how evenly experts are used.

The report gives no balancing loss; this is the usual one with Qwen's published coefficient of 0.001, taken layer by
layer. transformers joins the layers before averaging, where opposite imbalances in two layers cancel out; and it reads
whatever the router returns, which in some versions has gone through a softmax already. So the routers are watched by
hooks and probabilities are computed here, from raw logits.

Dimensions: N tokens, E experts, k active experts.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import nn
from transformers import PreTrainedModel

DEAD_SHARE = 0.1


@dataclass
class RouterLog:
    """What the routers did in the last forward pass, and the load since `reset_load`.

    Attributes:
        logits: Layer index to raw router logits [N, E] of the last forward pass, with gradients.
        load: Layer index to the number of tokens each expert received, int64 [E].
    """

    top_k: int
    logits: dict[int, torch.Tensor] = field(default_factory=dict[int, torch.Tensor])
    load: dict[int, torch.Tensor] = field(default_factory=dict[int, torch.Tensor])

    def balance_loss(self) -> torch.Tensor:
        """Mean over layers of `load_balancing_loss`, of the last forward pass."""
        return torch.stack([load_balancing_loss(logits, self.top_k) for logits in self.logits.values()]).mean()

    def reset_load(self) -> None:
        """Forget the counted load."""
        self.load.clear()

    def max_over_mean(self) -> float:
        """Largest expert load over the mean load, the worst layer's."""
        return max(float(load.max() / load.float().mean()) for load in self.load.values())

    def num_dead(self) -> int:
        """Experts, over all layers, that received less than a tenth of a fair share."""
        return sum(int((load < DEAD_SHARE * load.float().mean()).sum()) for load in self.load.values())

    def entropy(self) -> float:
        """Entropy of the load over that of an even one, mean over layers; 1 is perfect balance."""
        shares = [load / load.sum() for load in self.load.values()]
        entropies = [float(torch.special.entr(share).sum() / torch.tensor(float(len(share))).log()) for share in shares]
        return sum(entropies) / len(entropies)


def load_balancing_loss(logits: torch.Tensor, top_k: int) -> torch.Tensor:
    """E * sum_e f_e P_e of one layer; k at perfect balance.

    Args:
        logits: [N, E], raw.
        top_k: k.

    Returns:
        Scalar; f_e is the share of tokens that choose e, P_e its mean probability, which carries the gradient.
    """
    probabilities = logits.float().softmax(dim=-1)
    chosen = probabilities.topk(top_k, dim=-1).indices
    frequency = torch.zeros_like(probabilities).scatter_(1, chosen, 1.0).mean(dim=0)
    return logits.shape[-1] * (frequency * probabilities.mean(dim=0)).sum()


@contextmanager
def watch_routers(model: PreTrainedModel) -> Iterator[RouterLog]:
    """Record every router's logits while the context is open."""
    log = RouterLog(top_k=model.config.num_experts_per_tok)

    def record(layer: int, output: tuple[torch.Tensor, ...]) -> None:
        logits, _, chosen = output
        log.logits[layer] = logits
        counts = torch.bincount(chosen.detach().flatten(), minlength=logits.shape[-1]).cpu()
        log.load[layer] = log.load[layer] + counts if layer in log.load else counts

    def hook(layer: int) -> torch.utils.hooks.RemovableHandle:
        gate: nn.Module = model.model.layers[layer].mlp.gate
        return gate.register_forward_hook(lambda _module, _inputs, output: record(layer, output))

    handles = [hook(layer) for layer in range(model.config.num_hidden_layers)]
    try:
        yield log
    finally:
        for handle in handles:
            handle.remove()
