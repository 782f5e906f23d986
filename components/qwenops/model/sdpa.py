"""torch's attention kernel in the type that is quick on the device, as an attention function of transformers.

Under autocast `scaled_dot_product_attention` computes in bf16. On a CPU its backward pass then multiplies block by
block with matrices too small for the bf16 instructions: 32 rows of 64 tokens, 4 query heads of 32 on 2 of keys, took
24.9 ms forwards and backwards on one core with those instructions, and 4.3 ms in fp32; 4 rows of 512 took 26.5 and
19.6 ms. So it computes in fp32 there, which is never less exact.

A mask costs the kernel its causal shortcut and repeats keys for every query head. Rows padded on the right need none:
what is real never sees what stands behind it.
"""

from typing import Any

import torch
from torch import nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import causal_mask_function, sdpa_mask

from qwenops.model.attention import under_autocast

NAME = "sdpa_under_autocast"


def sdpa_attention(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    **settings: Any,
) -> tuple[torch.Tensor, None]:
    """Transformers' own SDPA function on tensors of the type that `under_autocast` chooses.

    Args:
        module: The attention layer.
        query: [B, H, L, D]: batch, query heads, length, head size.
        key: [B, K, T, D]; K divides H.
        value: [B, K, T, D].
        attention_mask: bool [B, 1, L, T], True where a query sees a key; None for causal rows.
        settings: Others of the interface, handed on.

    Returns:
        [B, L, H, D] in the kernel's type, and None for the weights that are never formed.
    """
    tensors = under_autocast(query, key, value)
    with torch.autocast(query.device.type, enabled=False):
        return sdpa_attention_forward(module, *tensors, attention_mask, **settings)  # type: ignore[no-any-return]


def mask_of(
    batch_size: int,
    q_length: int,
    kv_length: int,
    *,
    mask_function: Any = causal_mask_function,
    attention_mask: torch.Tensor | None = None,
    **settings: Any,
) -> torch.Tensor | None:
    """Mask function of transformers' interface: its own, but none for causal rows that are padded on the right.

    To look at a mask on a GPU would make its queue run empty, so there it stays.
    """
    causal = mask_function is causal_mask_function and q_length == kv_length
    if attention_mask is not None and causal and attention_mask.device.type == "cpu":
        real = attention_mask[:, :kv_length].bool()
        if not bool((real[:, 1:] & ~real[:, :-1]).any()):
            attention_mask = None
    return sdpa_mask(
        batch_size, q_length, kv_length, mask_function=mask_function, attention_mask=attention_mask, **settings
    )


AttentionInterface.register(NAME, sdpa_attention)
AttentionMaskInterface.register(NAME, mask_of)
