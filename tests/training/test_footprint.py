"""The planned bytes and FLOPs against what a training step here really allocates and computes."""

import subprocess
import sys
from functools import partial

import numpy as np
import pytest
import torch
from tests.bench.meters import peak_resident
from tests.training.counting import peak_bytes
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModelForCausalLM

from qwenops.model import sdpa
from qwenops.model.architecture import model_config
from qwenops.model.sizes import Experts, Size
from qwenops.training.batching import text_batch
from qwenops.training.config import TrainingConfig
from qwenops.training.fit import fit
from qwenops.training.footprint import flops_per_token, footprint
from qwenops.training.objective import language_modelling
from qwenops.training.optimizer import build_optimizer
from qwenops.training.precision import compute_dtype
from qwenops_pipelines.devices import PROCESS_BYTES

SMALL = Size(
    hidden_size=128,
    num_layers=4,
    num_query_heads=4,
    num_kv_heads=2,
    intermediate_size=352,
    vocab_rows=2048,
    tied_embeddings=True,
)
MEDIUM = SMALL.model_copy(update={"hidden_size": 256, "intermediate_size": 704, "vocab_rows": 8192})
# The width and vocabulary of SmolLM2-135M.
WIDE = Size(
    hidden_size=576,
    num_layers=6,
    num_query_heads=9,
    num_kv_heads=3,
    intermediate_size=1536,
    vocab_rows=49_152,
    tied_embeddings=True,
)
UNTIED = SMALL.model_copy(update={"num_kv_heads": 4, "num_layers": 6, "vocab_rows": 1024, "tied_embeddings": False})


NEEDS_BF16 = pytest.mark.skipif(
    compute_dtype(torch.device("cpu"), "bf16") != torch.bfloat16, reason="this processor only emulates bf16"
)


def _model(size):
    return AutoModelForCausalLM.from_config(model_config(size), attn_implementation=sdpa.NAME, dtype=torch.float32)


def _batch(size, rows, length):
    return text_batch(np.random.default_rng(0).integers(size.vocab_rows, size=(rows, length + 1)))


@pytest.mark.parametrize("recompute", ["none", "matmuls", "layers"])
@pytest.mark.parametrize(
    ("size", "rows", "length", "optimizer", "precision"),
    [
        (SMALL, 4, 256, "adamw", "fp32"),
        (UNTIED, 2, 384, "muon", "fp32"),
        (SMALL, 1, 32, "adamw", "fp32"),
        pytest.param(SMALL, 4, 256, "adamw", "bf16", marks=NEEDS_BF16),
        pytest.param(UNTIED, 2, 384, "muon", "bf16", marks=NEEDS_BF16),
    ],
    ids=["tied", "untied", "weights dominate", "tied bf16", "untied bf16"],
)
def test_planned_memory_is_within_a_tenth_of_what_a_step_allocates(size, rows, length, optimizer, precision, recompute):
    config = TrainingConfig(
        steps=1,
        batch_tokens=rows * length,
        precision=precision,
        warmup_steps=0,
        recompute=recompute,
        optimizer=optimizer,
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
    assert planned.gradients == weights
    assert planned.optimizer == pytest.approx(sum(value.nbytes for value in moments), rel=0.01)
    measured = weights + planned.optimizer + peak_bytes(step)
    assert planned.tensors == pytest.approx(measured, rel=0.1)


@pytest.mark.parametrize("precision", ["fp32", pytest.param("bf16", marks=NEEDS_BF16)])
def test_planned_memory_holds_for_documents_that_attend_by_themselves(precision):
    config = TrainingConfig(
        steps=1, batch_tokens=1024, precision=precision, warmup_steps=0, attention="by_document", recompute="none"
    )
    model, batch = _model(SMALL), _batch(SMALL, 4, 256)
    batch["position_ids"] = torch.arange(256).remainder(64).expand(4, 256)

    def step():
        model.zero_grad(set_to_none=True)
        fit(model, language_modelling, lambda _: iter([batch]), config)

    planned = footprint(SMALL, config, 256, rows=4)
    # The moments come after the first step's peak, the weights were there before.
    assert planned.tensors - planned.weights - planned.optimizer == pytest.approx(peak_bytes(step), rel=0.03)


def _train(size, rows, length, changes):
    config = TrainingConfig(steps=3, batch_tokens=rows * length, warmup_steps=0, **changes)
    model, batch = _model(size), _batch(size, rows, length)
    fit(model, language_modelling, lambda _: iter([batch] * 3), config)
    return model


def _training_alone(*arguments):
    """A first training of no size, which loads what torch loads at its first use, then the one to measure."""
    _train(SMALL.model_copy(update={"num_layers": 1, "vocab_rows": 256}), 2, 32, arguments[-1])
    return partial(_train, *arguments)


@pytest.mark.integration
@pytest.mark.parametrize(
    ("size", "rows", "length", "changes"),
    [
        (SMALL, 16, 512, {"precision": "fp32"}),
        (MEDIUM, 8, 512, {"precision": "fp32"}),
        (MEDIUM, 8, 512, {}),
        (MEDIUM, 8, 512, {"recompute": "layers"}),
        (MEDIUM, 8, 512, {"optimizer": "muon"}),
        (MEDIUM, 8, 512, {"optimizer": "muon", "recompute": "layers"}),
        (WIDE, 2, 512, {}),
    ],
    ids=["small fp32", "medium fp32", "medium", "medium recomputed", "medium muon", "medium recomputed muon", "wide"],
)
def test_planned_peak_is_within_a_tenth_of_what_training_adds_to_a_process(size, rows, length, changes):
    config = TrainingConfig(batch_tokens=rows * length, **changes)
    if compute_dtype(torch.device("cpu"), config.precision) == torch.float32:
        config = config.model_copy(update={"precision": "fp32"})
    planned = footprint(size, config, length, rows=rows)
    measured = peak_resident(_training_alone, size, rows, length, changes)
    assert planned.peak == pytest.approx(measured, rel=0.1)


@pytest.mark.integration
def test_process_beside_the_planned_peak_is_that_of_a_training_stage():
    code = (
        "import qwenops.pretraining.pretrain.run, tests.training.test_footprint as t;"
        "from tests.bench.meters import resident;"
        "t._training_alone(t.SMALL, 2, 32, {}); print(resident('VmRSS'))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout.split()[-1]) == pytest.approx(PROCESS_BYTES, rel=0.15)


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
