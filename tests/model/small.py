"""Small untrained models for the model tests."""

import torch
from transformers import PreTrainedModel, Qwen2Config, Qwen2ForCausalLM, Qwen2MoeForCausalLM

from qwenops.model.architecture import model_config
from qwenops.model.sizes import Experts, Size
from qwenops.model.upcycling import FeedForward
from qwenops.training.objective import language_modelling
from qwenops.training.terms import Batch

TRAINED = 64


def small_size(*, tied: bool = True, experts: Experts | None = None) -> Size:
    return Size(
        hidden_size=64,
        num_layers=2,
        num_query_heads=4,
        num_kv_heads=2,
        intermediate_size=96,
        vocab_rows=300,
        tied_embeddings=tied,
        experts=experts,
    )


def small_model(*, tied: bool = True, experts: Experts | None = None, seed: int = 0) -> PreTrainedModel:
    """A model with weights large enough that a change of positions shows in its logits."""
    torch.manual_seed(seed)
    config = model_config(
        small_size(tied=tied, experts=experts), max_position_embeddings=TRAINED, initializer_range=0.2
    )
    kind = Qwen2MoeForCausalLM if experts else Qwen2ForCausalLM
    model = kind._from_config(config, attn_implementation="sdpa").eval()
    for name, parameter in model.named_parameters():
        if name.endswith("bias") or name.endswith("mlp.gate.weight"):
            torch.nn.init.normal_(parameter, std=0.2)
    return model


def random_ids(rows: int, length: int, seed: int = 1) -> torch.Tensor:
    return torch.randint(0, 256, (rows, length), generator=torch.Generator().manual_seed(seed))


def logits(model: PreTrainedModel, ids: torch.Tensor, **inputs: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        return model(ids, **inputs).logits


def feed_forward(width: int, hidden: int = 8, seed: int = 0) -> FeedForward:
    generator = torch.Generator().manual_seed(seed)
    return FeedForward(
        *(torch.randn(shape, generator=generator) for shape in ((width, hidden), (width, hidden), (hidden, width)))
    )


def apply_feed_forward(weights: FeedForward, x: torch.Tensor) -> torch.Tensor:
    gated = torch.nn.functional.silu(x @ weights.gate.mT) * (x @ weights.up.mT)
    return gated @ weights.down.mT


def grouped_model() -> Qwen2ForCausalLM:
    """A model two of whose query heads share a key, as transformers makes it."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "vocab_size": 64}
    return Qwen2ForCausalLM(Qwen2Config(**sizes, num_attention_heads=4, num_key_value_heads=2))


def loss_and_gradients(implementation: str, batch: Batch) -> list[torch.Tensor]:
    """Of `grouped_model` that attends by `implementation`: the text loss of `batch` and every weight's gradient."""
    model = grouped_model()
    model.set_attn_implementation(implementation)
    loss, _ = language_modelling(model, batch)
    loss.backward()
    return [loss, *(parameter.grad for parameter in model.parameters())]
