"""Documents apart in a packed row: by kernel calls as by transformers' mask."""

import pytest
import torch
from tests.model.small import grouped_model, loss_and_gradients
from torch._dynamo.utils import counters
from torch.utils._python_dispatch import TorchDispatchMode

from qwenops.model import documents
from qwenops.training.batching import Example, pack_batch, pad_batch, text_batch
from qwenops.training.config import TrainingConfig
from qwenops.training.fit import fit
from qwenops.training.loss import hidden_states
from qwenops.training.objective import language_modelling

_ROUNDING = 1e-5


def _examples(*lengths):
    draw = torch.Generator().manual_seed(sum(lengths))
    return [Example(torch.randint(1, 64, (n,), generator=draw).tolist(), (True,) * n) for n in lengths]


WHOLE = text_batch(torch.arange(50).reshape(2, 25).numpy())
PACKED = pack_batch([_examples(5, 9, 1, 6), _examples(24), _examples(12, 8)], 24, 0)


@pytest.mark.parametrize(
    "batch", [PACKED, pad_batch(_examples(5, 9, 3), 0), WHOLE], ids=["packed", "padded", "a document per row"]
)
def test_loss_and_gradients_equal_those_under_a_mask(batch):
    found = [loss_and_gradients(implementation, batch) for implementation in ("sdpa", documents.NAME)]
    assert all(torch.allclose(a, b, atol=_ROUNDING) for a, b in zip(*found, strict=True))


def test_autocast_to_bfloat16_reaches_the_kernel_and_both_passes():
    """Rotated queries are fp32 there and values bf16."""
    exact = loss_and_gradients(documents.NAME, PACKED)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded = loss_and_gradients(documents.NAME, PACKED)
    assert all(torch.allclose(a, b, rtol=0.02, atol=0.02) for a, b in zip(exact, rounded, strict=True))


@pytest.mark.parametrize("batch", [PACKED, WHOLE], ids=["packed", "a document per row"])
def test_borders_are_looked_for_once_and_not_in_every_layer(batch):
    model = grouped_model()
    model.set_attn_implementation(documents.NAME)
    looks = Looks()
    with looks:
        hidden_states(model, batch["input_ids"], position_ids=batch.get("position_ids"))
    assert looks.count == (1 if "position_ids" in batch else 0)


class Looks(TorchDispatchMode):
    """Counts the operators that wait for a device before they know the shape of their result."""

    count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.count += function is torch.ops.aten.nonzero.default
        return function(*args, **(kwargs or {}))


def test_loss_of_a_model_called_without_borders_is_the_same():
    model = grouped_model()
    model.set_attn_implementation(documents.NAME)
    inputs = {"input_ids": PACKED["input_ids"], "position_ids": PACKED["position_ids"]}
    assert torch.equal(model.model(**inputs).last_hidden_state, hidden_states(model, **inputs))


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
def test_new_borders_do_not_compile_a_layer_again():
    counters.clear()
    graphs = []
    model = grouped_model()
    model.set_attn_implementation(documents.NAME)
    for layer in model.model.layers:
        layer.compile(backend="eager")
    for batch in (PACKED, pack_batch([_examples(7, 17), _examples(3, 21), _examples(11, 2, 11)], 24, 0)):
        hidden_states(model, batch["input_ids"], position_ids=batch["position_ids"])
        graphs.append(counters["stats"]["unique_graphs"])
    assert graphs[0] == graphs[1] > 0


def test_document_is_read_as_if_it_were_alone():
    model = grouped_model()
    model.set_attn_implementation(documents.NAME)
    whole = hidden_states(model, PACKED["input_ids"], position_ids=PACKED["position_ids"])
    alone = hidden_states(model, PACKED["input_ids"][:1, 5:14])
    assert torch.allclose(whole[:1, 5:14], alone, atol=_ROUNDING)


def test_generation_from_a_cache_is_that_of_sdpa():
    model, prompt = grouped_model().eval(), torch.tensor([[0, 0, 3, 4], [5, 6, 7, 8]])
    outputs = []
    for implementation in ("sdpa", documents.NAME):
        model.set_attn_implementation(implementation)
        mask = (prompt > 0).long()
        outputs.append(model.generate(prompt, attention_mask=mask, max_new_tokens=6, do_sample=False, pad_token_id=0))
    assert torch.equal(*outputs)


@pytest.mark.parametrize("recompute", ["none", "layers"])
def test_fit_learns_the_same_curve_by_document(recompute):
    curves = []
    for attention in ("masked", "by_document"):
        config = TrainingConfig(
            steps=4, batch_tokens=72, warmup_steps=0, precision="fp32", attention=attention, recompute=recompute
        )
        curves.append(fit(grouped_model(), language_modelling, lambda _: iter([PACKED] * 4), config).curve)
    assert curves[0] == pytest.approx(curves[1], rel=_ROUNDING)
