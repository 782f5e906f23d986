"""Attention over part of the keys, with the log-sum-exp that lets parts be joined, forwards and backwards.

The public `scaled_dot_product_attention` does not return the log-sum-exp, so torch's flash operators are called
directly: on the CPU in any type, on CUDA in half precision. Elsewhere the same is computed plainly, which forms the
scores of one part at a time.

The backward pass takes the output and log-sum-exp over *all* keys, not those of the part: a weight is then the
whole softmax's, so the gradients of the parts simply add up. This is what ring attention does between devices.

Dimensions: B batch, H query heads, K key-value heads, Q queries, T keys, D head size.
"""

import torch

Gradients = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


def under_autocast(*tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """The tensors in one type for the kernels under autocast, as they are without it.

    Rotations and caches leave fp32 queries, keys and even values beside bf16 ones, which no kernel takes. They become
    what autocast asks for, but fp32 on a CPU: its bf16 backward kernel took 5.6 ms for 9 heads of 64 and 170 tokens,
    the fp32 one 2.6 (one core with bf16 instructions; 512 tokens: 21 either way).
    """
    kind = tensors[0].device.type
    if not torch.is_autocast_enabled(kind):
        return tensors
    dtype = torch.float32 if kind == "cpu" else torch.get_autocast_dtype(kind)
    return tuple(x.to(dtype) for x in tensors)


def attend_part(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scaling: float, *, causal: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """Attention of `query` over the given keys.

    Args:
        query: [B, H, Q, D].
        key: [B, K, T, D]; K divides H.
        value: [B, K, T, D].
        scaling: Factor of the logits.
        causal: Query i sees keys 0 to i (then Q = T), or every query sees every key.

    Returns:
        [B, H, Q, D] in the query's dtype, and the float32 log-sum-exp of the scores [B, H, Q].
    """
    query_shape = query.shape
    query, key, value = _align(query, key, value, causal)
    if query.device.type == "cpu":
        flash = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
        output, lse = flash(query, key, value, 0.0, causal, scale=scaling)
    elif _has_cuda_flash(query):
        flash = torch.ops.aten._scaled_dot_product_flash_attention
        output, lse = flash(query, key, value, 0.0, causal, False, scale=scaling)[:2]
    else:
        output, lse = attend_eager(query, key, value, scaling, causal=causal)
    return output.reshape(query_shape), lse.reshape(query_shape[:-1])


def attend_part_backward(
    gradient: torch.Tensor,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    output: torch.Tensor,
    lse: torch.Tensor,
    scaling: float,
    *,
    causal: bool,
) -> Gradients:
    """Gradients of query, key and value that come from one part.

    Args:
        gradient: Of the whole output, [B, H, Q, D].
        query: As given to `attend_part`.
        key: As given to `attend_part`.
        value: As given to `attend_part`.
        output: Over all keys, [B, H, Q, D].
        lse: Over all keys, float32 [B, H, Q].
        scaling: Factor of the logits.
        causal: As given to `attend_part`.
    """
    query_shape, key_shape = query.shape, key.shape
    query, key, value = _align(query, key, value, causal)
    gradient, output, lse = (x.reshape(*query.shape[:3], *x.shape[3:]) for x in (gradient, output, lse))
    if query.device.type == "cpu":
        flash = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward
        found = flash(gradient, query, key, value, output, lse, 0.0, causal, scale=scaling)
    elif _has_cuda_flash(query):
        flash = torch.ops.aten._scaled_dot_product_flash_attention_backward
        seed = torch.zeros(2, dtype=torch.uint64, device=query.device)  # of a dropout that is off
        lengths = (None, None, query.shape[2], key.shape[2])
        found = flash(
            gradient, query, key, value, output, lse.contiguous(), *lengths, 0.0, causal, seed, seed[:0], scale=scaling
        )
    else:
        found = attend_eager_backward(gradient, query, key, value, output, lse, scaling, causal=causal)
    # Repeated keys give one gradient per query head; a group's add up.
    groups = found[1].shape[1] // key_shape[1]
    if groups == 1:
        return found[0].reshape(query_shape), found[1], found[2]
    for_key, for_value = (x.reshape(key_shape[0], key_shape[1], groups, *key_shape[2:]).sum(2) for x in found[1:])
    return found[0].reshape(query_shape), for_key, for_value


def attend_eager(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scaling: float, *, causal: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """`attend_part` without a kernel, for as many key as query heads."""
    scores = _scores(query, key, scaling, causal)
    lse = scores.logsumexp(dim=-1)
    return (scores - lse[..., None]).exp().to(value.dtype) @ value, lse


def attend_eager_backward(
    gradient: torch.Tensor,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    output: torch.Tensor,
    lse: torch.Tensor,
    scaling: float,
    *,
    causal: bool,
) -> Gradients:
    """`attend_part_backward` without a kernel, for as many key as query heads."""
    weights = (_scores(query, key, scaling, causal) - lse[..., None]).exp()
    spread = (gradient.float() * output.float()).sum(-1, keepdim=True)
    slope = (weights * ((gradient @ value.mT).float() - spread) * scaling).to(query.dtype)
    return slope @ key, slope.mT @ query, weights.to(gradient.dtype).mT @ gradient


def _scores(query: torch.Tensor, key: torch.Tensor, scaling: float, causal: bool) -> torch.Tensor:
    scores = (query @ key.mT).float() * scaling
    if causal:
        seen = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
        scores = scores.masked_fill(~seen, float("-inf"))
    return scores


def _align(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, causal: bool
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """As many key as query heads: of causal keys, which are few, by repeating them; else by joining a group's queries.

    Where every query sees every key, the query heads of a group can stand one after another before the same key.
    """
    groups = query.shape[1] // key.shape[1]
    if groups == 1:
        return query, key, value
    if causal:
        return query, key.repeat_interleave(groups, dim=1), value.repeat_interleave(groups, dim=1)
    return query.reshape(query.shape[0], key.shape[1], -1, query.shape[-1]), key, value


def _has_cuda_flash(query: torch.Tensor) -> bool:
    return query.device.type == "cuda" and query.dtype in (torch.bfloat16, torch.float16)
