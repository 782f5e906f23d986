"""The planned bytes and FLOPs against what a training step here really allocates and computes."""

import numpy as np
import pytest
import torch
from tests.training.counting import peak_bytes
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModelForCausalLM

from qwenops.model.architecture import model_config
from qwenops.model.sizes import Experts, Size
from qwenops.training.batching import text_batch
from qwenops.training.config import TrainingConfig
from qwenops.training.fit import fit
from qwenops.training.footprint import flops_per_token, footprint
from qwenops.training.objective import language_modelling
from qwenops.training.optimizer import build_optimizer

SMALL = Size(
    hidden_size=128,
    num_layers=4,
    num_query_heads=4,
    num_kv_heads=2,
    intermediate_size=352,
    vocab_rows=2048,
    tied_embeddings=True,
)
UNTIED = SMALL.model_copy(update={"num_kv_heads": 4, "num_layers": 6, "vocab_rows": 1024, "tied_embeddings": False})


def _model(size):
    return AutoModelForCausalLM.from_config(model_config(size), attn_implementation="sdpa", dtype=torch.float32)


def _batch(size, rows, length):
    return text_batch(np.random.default_rng(0).integers(size.vocab_rows, size=(rows, length + 1)))


@pytest.mark.parametrize("recompute", ["none", "matmuls", "layers"])
@pytest.mark.parametrize(
    ("size", "rows", "length", "optimizer"),
    [(SMALL, 4, 256, "adamw"), (UNTIED, 2, 384, "muon"), (SMALL, 1, 32, "adamw")],
    ids=["tied", "untied", "weights dominate"],
)
def test_planned_memory_is_within_a_tenth_of_what_a_step_allocates(size, rows, length, optimizer, recompute):
    config = TrainingConfig(
        steps=1, batch_tokens=rows * length, precision="fp32", warmup_steps=0, recompute=recompute, optimizer=optimizer
    )
    model, batch = _model(size), _batch(size, rows, length)
    stepper = build_optimizer(model, config)

    def step():
        fit(model, language_modelling, lambda _: iter([batch]), config, optimizer=stepper)

    step()
    stepper.zero_grad(set_to_none=True)
    parts = [p.state for p in getattr(stepper, "parts", (stepper,))]
    moments = [v for part in parts for state in part.values() for v in state.values() if torch.is_tensor(v)]
    weights = sum(parameter.nbytes for parameter in model.parameters())
    planned = footprint(size, config, length, rows=rows)
    assert planned.weights == weights
    assert planned.optimizer == pytest.approx(sum(value.nbytes for value in moments), rel=0.01)
    measured = weights + planned.optimizer + peak_bytes(step)
    assert planned.peak == pytest.approx(measured, rel=0.1)


@pytest.mark.parametrize("size", [SMALL, UNTIED], ids=["tied", "untied"])
def test_planned_flops_are_those_torch_counts(size):
    model, batch = _model(size), _batch(size, 2, 128)
    with FlopCounterMode(display=False) as counter:
        loss, _ = language_modelling(model, batch)
        loss.backward()
    # torch counts attention's full square; causal attention needs half of it.
    attention = 6 * size.num_layers * size.num_query_heads * size.head_size * 128
    # Norms and biases are no matrix products.
    assert counter.get_total_flops() == pytest.approx(256 * (flops_per_token(size, 128) + attention), rel=0.15)


def test_division_over_workers_divides_what_is_divided():
    config = TrainingConfig(precision="fp32")
    alone, among = footprint(SMALL, config, 256, rows=4), footprint(SMALL, config, 256, rows=4, shards=4)
    assert among.gradients == alone.gradients // 4
    assert among.optimizer == alone.optimizer // 4
    assert among.activations == alone.activations


def test_experts_count_by_those_a_token_uses():
    experts = SMALL.model_copy(
        update={"experts": Experts(num_experts=8, num_active=2, expert_width=176, shared_width=0)}
    )
    more = experts.model_copy(update={"experts": experts.experts.model_copy(update={"num_experts": 16})})
    router = 6 * SMALL.num_layers * 8 * SMALL.hidden_size
    assert flops_per_token(more, 64) == flops_per_token(experts, 64) + router
