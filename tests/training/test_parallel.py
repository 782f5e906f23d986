"""Two workers under gloo, forked: they must train as one process does."""

from dataclasses import replace

import pytest
import torch
from tests.training.counting import number_rows, tiny_model
from tests.training.workers import on_workers

from qwenops.training.batching import text_batch
from qwenops.training.config import TrainingConfig
from qwenops.training.fit import FitCallbacks, fit
from qwenops.training.objective import language_modelling, mean_loss
from qwenops.training.parallel import apply_parallelism, full_state_dict

CONFIG = TrainingConfig(
    steps=5,
    batch_tokens=96,
    learning_rate=1e-2,
    final_learning_rate=1e-3,
    warmup_steps=1,
    schedule="wsd",
    precision="fp32",
)


def _batches(rank, size):
    def from_step(start):
        for step in range(start, CONFIG.steps):
            yield text_batch(number_rows(step, rows=5)[rank::size])

    return from_step


def _work(rank, size, sharding, tied, config):
    model = tiny_model(tied=tied)
    if sharding == "sharded":
        apply_parallelism(model)
        # An evaluation before training must not leave gathered weights to the optimiser.
        mean_loss(model, [text_batch(number_rows(99))])
    result = fit(model, language_modelling, _batches(rank, size), config)
    return {"state": full_state_dict(model), "curve": result.curve}


@pytest.mark.parametrize(
    ("sharding", "tied", "optimizer"),
    [("whole", True, "muon"), ("sharded", True, "adamw"), ("sharded", False, "adamw"), ("sharded", True, "muon")],
)
def test_two_workers_with_unequal_rows_train_as_one_process_does(sharding, tied, optimizer, monkeypatch):
    # Muon's iteration in bf16, where the processor has it, makes much of the last bits of a sum.
    monkeypatch.setattr(torch.cpu, "get_capabilities", dict)
    config = CONFIG.model_copy(update={"optimizer": optimizer})
    found = on_workers(2, _work, sharding, tied, config)
    alone = tiny_model(tied=tied)
    expected = fit(alone, language_modelling, _batches(0, 1), config)
    assert found["curve"] == pytest.approx(expected.curve, rel=1e-4)
    for name, value in alone.state_dict().items():
        assert torch.allclose(found["state"][name], value, atol=2e-3), name


def _figures(rank, size):
    """A figure that both workers have, one that only the second has, and tokens: what the loop reports."""

    def means(model, batch):
        found, _ = language_modelling.means(model, batch)
        return found, {"rank": (rank, 1.0)} | ({"second": (6.0, 2.0)} if rank else {})

    reports = []
    hooks = FitCallbacks(on_step=reports.append)
    fit(tiny_model(), replace(language_modelling, means=means), _batches(rank, size), CONFIG, hooks=hooks)
    return [(report.metrics, report.tokens) for report in reports]


def test_figures_and_tokens_are_those_of_all_workers():
    # Five rows of 16 tokens a step.
    assert on_workers(2, _figures) == [({"rank": 0.5, "second": 3.0}, 80)] * CONFIG.steps


def _resume(rank, size, state, optimizer):
    config = CONFIG.model_copy(update={"checkpoint_every_steps": 2, "optimizer": optimizer})
    curves = []
    for model in (tiny_model(), tiny_model(seed=1)):
        # The second model starts from other weights, and takes over the state the first left at step 4.
        apply_parallelism(model)
        curves.append(fit(model, language_modelling, _batches(rank, size), config, state_dir=state).curve)
    return curves


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_sharded_training_resumes_from_the_last_state(tmp_path, optimizer):
    whole, resumed = on_workers(2, _resume, tmp_path / "state", optimizer)
    assert resumed == whole
