"""Meshes of two and four workers under gloo, forked: loss and gradients must be those of one process."""

import pytest
import torch
from tests.training.counting import VOCABULARY, tiny_model
from tests.training.workers import on_workers
from transformers import Qwen2Config, Qwen2MoeConfig, Qwen2MoeForCausalLM

from qwenops.errors import RecipeError
from qwenops.model.rope import change_base
from qwenops.recipe.mesh import ParallelConfig
from qwenops.training.batching import Example, pack_batch, pad_batch, text_batch
from qwenops.training.checkpoint_files import list_checkpoints
from qwenops.training.config import TrainingConfig
from qwenops.training.context_parallel import local_sequence
from qwenops.training.fit import FitCallbacks, fit
from qwenops.training.mesh import check_mesh
from qwenops.training.objective import language_modelling, mean_loss
from qwenops.training.parallel import apply_parallelism, data_parallel_rank, full_state_dict
from qwenops.training.terms import count_targets

CONFIG = TrainingConfig(
    steps=3,
    batch_tokens=96,
    learning_rate=1e-2,
    final_learning_rate=1e-3,
    warmup_steps=1,
    schedule="wsd",
    precision="fp32",
    clip_norm=0.5,
    checkpoint_every_steps=2,
)


def _documents(step):
    """Packed rows of 24 tokens, several documents each, with unequal numbers of targets."""
    draw = torch.Generator().manual_seed(step)
    rows = []
    for row in range(4):
        sizes = (5 + row, 9, 6) if row % 2 else (12, 8 + row)
        rows.append([Example(torch.randint(VOCABULARY, (n,), generator=draw).tolist(), (True,) * n) for n in sizes])
    return rows


def _batches(rank, size):
    def from_step(start):
        for step in range(start, CONFIG.steps):
            yield pack_batch(_documents(step)[rank::size], 24, 0)

    return from_step


def _mixture():
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
    experts = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24}
    config = Qwen2MoeConfig(
        **sizes, **experts, shared_expert_intermediate_size=32, vocab_size=VOCABULARY, intermediate_size=48
    )
    return Qwen2MoeForCausalLM(config)


def _train(config, parallel=None, tied=True, state=None, seed=0):
    model = _mixture() if tied == "mixture" else tiny_model(seed=seed, tied=bool(tied))
    if tied == "extended":
        change_base(model, 1e6, 128)
    if parallel:
        apply_parallelism(model, parallel, 24)
    if tied == "shared out, then extended":
        mean_loss(model, [pack_batch(_documents(9), 24, 0)])
        change_base(model, 1e6, 128)
    here = data_parallel_rank()
    norms = []
    hooks = FitCallbacks(on_step=lambda report: norms.append(report.gradient_norm))
    result = fit(model, language_modelling, _batches(here.rank, here.world_size), config, hooks=hooks, state_dir=state)
    held_out = mean_loss(model, [pack_batch(_documents(9), 24, 0)])
    return {"state": full_state_dict(model), "curve": result.curve, "norms": norms, "held_out": held_out}


def _work(rank, size, parallel, tied, config, state, seed):
    return _train(config, parallel, tied, state, seed)


def _on_workers(size, parallel, *, tied=True, config=CONFIG, state=None, seed=0, work=_work):
    return on_workers(size, work, parallel, tied, config, state, seed)


def _same(found, expected):
    assert found["curve"] == pytest.approx(expected["curve"], rel=1e-4)
    assert found["held_out"] == pytest.approx(expected["held_out"], rel=1e-3)
    assert found["norms"] == pytest.approx(expected["norms"], rel=1e-3)
    for name, value in expected["state"].items():
        assert torch.allclose(found["state"][name], value, atol=2e-3), name


@pytest.mark.parametrize(
    ("size", "parallel", "tied"),
    [
        (2, ParallelConfig(), True),
        (2, ParallelConfig(tensor=2), True),
        (2, ParallelConfig(context=2), False),
        (2, ParallelConfig(context=2), "extended"),
        (2, ParallelConfig(), "shared out, then extended"),
        (2, ParallelConfig(tensor=2), "mixture"),
        pytest.param(4, ParallelConfig(tensor=2), "mixture", marks=pytest.mark.integration),
        pytest.param(4, ParallelConfig(context=2, tensor=2), "mixture", marks=pytest.mark.integration),
        pytest.param(2, ParallelConfig(replicate=2), True, marks=pytest.mark.integration),
        pytest.param(4, ParallelConfig(replicate=2), True, marks=pytest.mark.integration),
        pytest.param(4, ParallelConfig(tensor=2), False, marks=pytest.mark.integration),
        pytest.param(4, ParallelConfig(context=2, tensor=2), True, marks=pytest.mark.integration),
        pytest.param(4, ParallelConfig(context=4), True, marks=pytest.mark.integration),
        pytest.param(4, ParallelConfig(replicate=2, tensor=2), True, marks=pytest.mark.integration),
    ],
    ids=str,
)
def test_mesh_trains_as_one_process_does(size, parallel, tied):
    found = _on_workers(size, parallel, tied=tied)
    _same(found, _train(CONFIG, tied=tied))


@pytest.mark.integration
@pytest.mark.parametrize(("before", "after"), [(2, 4), (4, 2), (2, 1), (1, 2)])
def test_loop_resumes_on_another_number_of_workers(tmp_path, before, after):
    state = tmp_path / "state"
    runs = []
    for number, size in enumerate((before, after)):
        # The second run starts from other weights, and takes over the state that the first left at step 2.
        if size == 1:
            runs.append(_train(CONFIG, state=state, seed=number))
        else:
            runs.append(_on_workers(size, ParallelConfig(), state=state, seed=number))
        assert [folder.name for folder in list_checkpoints(state)] == ["step-000000002"]
    _same(runs[1] | {"norms": runs[0]["norms"]}, runs[0])


def _say_why_not(*arguments):
    with pytest.raises(RecipeError, match="does not reach over the workers that share a row") as caught:
        _work(*arguments)
    return {"found": caught.value.found}


def test_attention_by_document_is_refused_where_workers_share_a_row():
    config = CONFIG.model_copy(update={"attention": "by_document"})
    found = _on_workers(2, ParallelConfig(context=2), config=config, work=_say_why_not)
    assert found == {"found": "by_document with context 2"}


QWEN = Qwen2Config(num_attention_heads=14, num_key_value_heads=2, intermediate_size=4864, hidden_size=896)


@pytest.mark.parametrize(
    ("parallel", "workers", "says"),
    [
        (ParallelConfig(tensor=4), 8, "does not divide the query heads"),
        (ParallelConfig(tensor=7), 7, "does not divide the key-value heads"),
        (ParallelConfig(replicate=3), 8, "does not fit the workers"),
        (ParallelConfig(shard=4, tensor=2), 4, "does not fit the workers"),
        (ParallelConfig(context=8, tensor=2), 8, "does not fit the workers"),
        (ParallelConfig(context=8), 8, "does not divide the row length"),
    ],
    ids=str,
)
def test_mesh_that_does_not_divide_is_refused_before_anything_starts(parallel, workers, says):
    with pytest.raises(RecipeError, match=says):
        check_mesh(parallel, QWEN, workers, length=4100)


def test_mesh_takes_the_workers_that_are_left_for_sharding():
    assert check_mesh(ParallelConfig(replicate=2, tensor=2), QWEN, 16) == ParallelConfig(replicate=2, shard=4, tensor=2)


@pytest.mark.parametrize(
    ("config", "says"),
    [
        (Qwen2MoeConfig(num_key_value_heads=16, num_experts=6), "does not divide the experts"),
        (Qwen2MoeConfig(num_key_value_heads=16, shared_expert_intermediate_size=90), "the feed-forward width"),
    ],
)
def test_experts_that_a_mesh_does_not_divide_are_refused(config, says):
    with pytest.raises(RecipeError, match=says):
        check_mesh(ParallelConfig(tensor=4), config, 4)


def test_stretches_of_a_row_hold_every_target_once():
    batch = text_batch(torch.arange(34).reshape(2, 17).numpy())
    parts = [local_sequence(batch, rank, 4) for rank in range(4)]
    assert torch.equal(torch.cat([part["labels"] for part in parts], dim=1), batch["labels"])
    assert torch.equal(torch.cat([part["position_ids"] for part in parts], dim=1)[0], torch.arange(16))
    assert sum(count_targets(part) for part in parts) == count_targets(batch)


def test_padded_rows_are_not_divided_along_their_length():
    padded = pad_batch([Example((1, 2, 3, 4), (True,) * 4), Example((1, 2), (True,) * 2)], 0)
    with pytest.raises(RecipeError, match="cannot be divided along its length"):
        local_sequence(padded, 0, 2)
