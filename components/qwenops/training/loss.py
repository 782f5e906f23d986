"""Losses from hidden states in chunks, so that [tokens x vocabulary] logits never exist as a whole.

Labels are ALREADY SHIFTED everywhere in `training/`: `labels[b, t]` is what position t has to predict, and
`IGNORE_INDEX` (-100) marks positions without a loss. `batching.shift_labels` turns transformers' convention into it.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from qwenops.model.documents import borders
from qwenops.training.parallel import full_tensor
from qwenops.training.precision import num_kernel_rows, repeated_shapes
from qwenops.training.terms import IGNORE_INDEX

_CHUNK_TOKENS = 1024


def chunked_cross_entropy(
    hidden: Tensor,
    lm_head_weight: Tensor,
    labels: Tensor,
    weights: Tensor | None = None,
    chunk: int = _CHUNK_TOKENS,
    z_loss: float = 0.0,
) -> Tensor:
    """Weighted mean cross entropy (nats per token); logits live for `chunk` tokens at a time.

    Args:
        hidden: [..., hidden] output of the decoder body after its final norm.
        lm_head_weight: [vocabulary, hidden].
        labels: int64 [...], already shifted; `IGNORE_INDEX` positions cost nothing, in time either.
        weights: float [...] weight of each position; None weighs all the same.
        chunk: Tokens whose logits exist at once.
        z_loss: Weight of the squared log-partition that is added to each token's loss (PaLM uses 1e-4).

    Returns:
        A scalar: sum(weight * loss) / sum(weight) over the positions that have a label.
    """
    return cross_entropy_by_token(hidden, lm_head_weight, labels, weights, chunk, z_loss)[0]


def cross_entropy_by_token(
    hidden: Tensor,
    lm_head_weight: Tensor,
    labels: Tensor,
    weights: Tensor | None = None,
    chunk: int = _CHUNK_TOKENS,
    z_loss: float = 0.0,
) -> tuple[Tensor, Tensor]:
    """`chunked_cross_entropy`, and the plain loss of each token that has a label: fp32 [targets], no gradient."""
    flat, targets, scale = _select(hidden, labels, weights)
    scale = scale / scale.sum().clamp_min(torch.finfo(scale.dtype).tiny)
    return _ChunkedCrossEntropy.apply(flat, lm_head_weight, targets, scale, chunk, z_loss)  # type: ignore[no-any-return]


def token_log_probs(hidden: Tensor, lm_head_weight: Tensor, labels: Tensor, chunk: int = _CHUNK_TOKENS) -> Tensor:
    """Log-probability of every label, fp32 [...]; 0 where it is `IGNORE_INDEX`. Logits are recomputed in backward."""
    keep = labels != IGNORE_INDEX
    flat, targets = hidden[keep], labels[keep]
    pieces = [
        checkpoint(_log_probs_of_chunk, part, lm_head_weight, target, use_reentrant=False)
        for part, target in zip(flat.split(chunk), targets.split(chunk), strict=True)
    ]
    found = torch.cat(pieces) if pieces else flat.new_zeros(0, dtype=torch.float32)
    return torch.zeros(labels.shape, dtype=torch.float32, device=hidden.device).masked_scatter(keep, found)


def hidden_states(
    model: Any, input_ids: Tensor, attention_mask: Tensor | None = None, position_ids: Tensor | None = None
) -> Tensor:
    """Output of the decoder body, [rows, length, hidden], without logits and without a key cache."""
    return model.model(
        input_ids=input_ids,
        attention_mask=attention_mask,
        position_ids=position_ids,
        use_cache=False,
        **borders(model, position_ids, attention_mask),
    ).last_hidden_state


def output_weight(model: Any) -> Tensor:
    """The [vocabulary, hidden] weight that turns hidden states into logits (the tied embedding, for small sizes)."""
    return full_tensor(model.get_output_embeddings().weight)


def dpo_loss(
    chosen: Tensor, rejected: Tensor, reference_chosen: Tensor, reference_rejected: Tensor, beta: float
) -> tuple[Tensor, Tensor, Tensor]:
    """DPO: -log sigmoid(beta * (chosen log-ratio - rejected log-ratio)) of summed log-probs, each [pairs].

    Returns:
        loss [pairs], and the implicit rewards beta * (log pi - log pi_ref) of both sides, detached.
    """
    chosen_reward = beta * (chosen - reference_chosen)
    rejected_reward = beta * (rejected - reference_rejected)
    return -F.logsigmoid(chosen_reward - rejected_reward), chosen_reward.detach(), rejected_reward.detach()


def reward_pair_loss(chosen: Tensor, rejected: Tensor) -> Tensor:
    """Reward model: -log sigmoid(r+ - r-) of rewards, each [pairs]; returns [pairs]."""
    return -F.logsigmoid(chosen - rejected)


def ppo_policy_loss(log_probs: Tensor, old_log_probs: Tensor, advantages: Tensor, clip: float) -> Tensor:
    """Clipped policy loss per token; same shape as its inputs."""
    ratio = (log_probs - old_log_probs).exp()
    return -torch.minimum(ratio * advantages, ratio.clamp(1 - clip, 1 + clip) * advantages)


def ppo_value_loss(values: Tensor, old_values: Tensor, returns: Tensor, clip: float) -> Tensor:
    """Value loss per token, 0.5 * max of the plain and the clipped squared error (clip 0.15 in Qwen1)."""
    clipped = old_values + (values - old_values).clamp(-clip, clip)
    return 0.5 * torch.maximum((values - returns).square(), (clipped - returns).square())


class _ChunkedCrossEntropy(torch.autograd.Function):
    """Computes the gradients while each chunk's logits are at hand: no second pass over the vocabulary."""

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, scale: Tensor, chunk: int, z_loss: float
    ) -> tuple[Tensor, Tensor]:
        need_hidden, need_weight = ctx.needs_input_grad[:2]
        grad_hidden = torch.zeros_like(hidden) if need_hidden else None
        grad_weight = torch.zeros_like(weight) if need_weight else None
        total = torch.zeros((), dtype=torch.float32, device=hidden.device)
        by_token = torch.empty(hidden.shape[0], dtype=torch.float32, device=hidden.device)
        matrix = weight.to(_matmul_dtype(hidden))
        for start in range(0, hidden.shape[0], chunk):
            rows = slice(start, start + chunk)
            part, target, share = hidden[rows].to(matrix.dtype), targets[rows], scale[rows]
            count = len(part)
            if padding := num_kernel_rows(part, count) - count:
                part = F.pad(part, (0, 0, 0, padding))
                target, share = F.pad(target, (0, padding)), F.pad(share, (0, padding))
            logits = (part @ matrix.T).float()
            largest = logits.amax(-1)
            picked = logits.gather(1, target[:, None])[:, 0] - largest
            # The logits' memory takes over each next stage: at a large vocabulary it is most of the peak.
            powers = logits.sub_(largest[:, None]).exp_()
            total_power = powers.sum(-1)
            picked -= total_power.log()
            by_token[rows] = -picked[:count]
            total -= (picked * share).sum()
            slope_share = share
            if z_loss:
                log_partition = total_power.log() + largest
                total += z_loss * (log_partition.square() * share).sum()
                slope_share = share * (1 + 2 * z_loss * log_partition)
            if not (need_hidden or need_weight):
                del logits, powers
                continue
            slope = powers.mul_((slope_share / total_power)[:, None])
            slope.scatter_add_(1, target[:, None], -share[:, None])
            slope = slope.to(matrix.dtype)
            if grad_hidden is not None:
                grad_hidden[rows] = (slope @ matrix)[:count]
            if grad_weight is not None:
                grad_weight += slope.T @ part
            # Else they would live on beside the next chunk's logits.
            del logits, powers, slope
        ctx.save_for_backward(grad_hidden, grad_weight)
        ctx.mark_non_differentiable(by_token)
        return total, by_token

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        grad_hidden, grad_weight = ctx.saved_tensors
        slope = grads[0]
        return (
            None if grad_hidden is None else grad_hidden * slope,
            None if grad_weight is None else grad_weight * slope,
            None,
            None,
            None,
            None,
        )


def _matmul_dtype(hidden: Tensor) -> torch.dtype:
    kind = hidden.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else hidden.dtype


def _select(hidden: Tensor, labels: Tensor, weights: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    flat, targets = hidden.reshape(-1, hidden.shape[-1]), labels.reshape(-1)
    scale = torch.ones_like(targets, dtype=torch.float32) if weights is None else weights.reshape(-1).float()
    keep = targets != IGNORE_INDEX
    if bool(keep.all()):
        return flat, targets, scale
    return flat[keep], targets[keep], scale[keep]


def _log_probs_of_chunk(hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    with repeated_shapes():
        logits = F.linear(hidden, weight).float()
    return logits.gather(1, targets[:, None])[:, 0] - logits.logsumexp(-1)
