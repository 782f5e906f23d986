"""Activation checkpointing, applied from outside the model: memory for a second forward pass.

| policy | kept of a layer | computed again in backward |
|---|---|---|
| none | everything | nothing |
| matmuls | its input and the results of its matrix products and of attention | norms, rotations, products of elements |
| layers | its input | the whole layer |
"""

from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import CheckpointPolicy, checkpoint, create_selective_checkpoint_contexts
from transformers.modeling_layers import GradientCheckpointingLayer

from qwenops.training.precision import repeated_shapes

_KEPT = {
    torch.ops.aten.mm.default,
    torch.ops.aten.addmm.default,
    torch.ops.aten._scaled_dot_product_flash_attention.default,
    torch.ops.aten._scaled_dot_product_efficient_attention.default,
    torch.ops.aten._scaled_dot_product_cudnn_attention.default,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu.default,
}


def decoder_layers(model: nn.Module) -> list[nn.Module]:
    """The decoder layers of every transformers model in `model`: a policy, a reward model, both models of PPO."""
    return [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]


def recompute_layers(model: nn.Module, policy: str) -> None:
    """Make every decoder layer in `model` follow `policy`, in place; "none" undoes it.

    The class of a layer stays, so the names of its weights do as well.
    """
    for layer in decoder_layers(model):
        layer.__dict__.pop("forward", None)
        if policy != "none":
            layer.forward = partial(_again, layer, type(layer).forward, policy)


def _again(layer: nn.Module, forward: Any, policy: str, *args: Any, **kwargs: Any) -> Any:
    if not torch.is_grad_enabled():
        return forward(layer, *args, **kwargs)
    selective = {"context_fn": partial(create_selective_checkpoint_contexts, _decide)} if policy == "matmuls" else {}
    return checkpoint(_run, forward, layer, *args, use_reentrant=False, **selective, **kwargs)


def _run(forward: Any, *args: Any, **kwargs: Any) -> Any:
    with repeated_shapes():
        return forward(*args, **kwargs)


def _decide(context: Any, operator: Any, *args: Any, **kwargs: Any) -> CheckpointPolicy:
    del context, args, kwargs
    return CheckpointPolicy.MUST_SAVE if operator in _KEPT else CheckpointPolicy.PREFER_RECOMPUTE
