import time
from dataclasses import replace

import torch
from tests.training.counting import number_batches, tiny_model

from qwenops.training.config import TrainingConfig
from qwenops.training.objective import language_modelling
from qwenops.training.threads import tune_threads, tune_training_threads


def test_choose_threads_takes_the_count_that_ran_fastest():
    before = torch.get_num_threads()
    try:
        chosen = tune_threads(lambda: time.sleep(0.02 if torch.get_num_threads() == 2 else 0.001), (1, 2))
        assert chosen == 1
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)


def test_work_that_takes_seconds_is_done_once_a_count_and_not_at_all_below_a_slower_one(monkeypatch):
    now, calls = 0.0, []
    takes = {8: 7.0, 4: 5.0, 2: 6.0, 1: 4.0}
    before = torch.get_num_threads()

    def work():
        nonlocal now
        calls.append(torch.get_num_threads())
        now += takes[calls[-1]]

    monkeypatch.setattr(time, "perf_counter", lambda: now)
    try:
        assert tune_threads(work, (8, 4, 2, 1)) == 4
    finally:
        torch.set_num_threads(before)
    assert calls == [8, 4, 2]


def test_count_is_measured_once_for_a_resumed_loop_and_leaves_no_gradient(tmp_path):
    before, passes, model = torch.get_num_threads(), [], tiny_model()
    config = TrainingConfig(precision="fp32", recompute="layers", micro_batch_tokens=16)

    def means(model, batch):
        passes.append(batch["input_ids"].numel())
        return language_modelling.means(model, batch)

    objective = replace(language_modelling, means=means)
    try:
        first = tune_training_threads(tmp_path / "threads", model, objective, number_batches, config)
        measured = len(passes)
        assert set(passes) == {16}
        assert all(parameter.grad is None for parameter in model.parameters())
        assert tune_training_threads(tmp_path / "threads", model, objective, number_batches, config) == first
        assert len(passes) == measured
    finally:
        torch.set_num_threads(before)
