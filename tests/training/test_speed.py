"""Speed figures against closed forms, and two gloo workers of which one is late."""

import time

import pytest
from tests.training.counting import number_batches, tiny_model
from tests.training.test_mesh import CONFIG
from tests.training.workers import on_workers

from qwenops.model.architecture import model_config, size_of
from qwenops.model.sizes import SIZES
from qwenops.training.fit import FitCallbacks, StepReport, fit
from qwenops.training.objective import language_modelling
from qwenops.training.speed import ThroughputMeter

_LATE_SECONDS = 0.3


def _report(step: int, seconds: float) -> StepReport:
    return StepReport(step, 4096, 2.0, 1e-3, 1.0, {}, seconds, 0.0)


@pytest.mark.parametrize("name", SIZES)
def test_size_of_a_config_is_the_size_it_was_made_from(name):
    assert size_of(model_config(SIZES[name]())) == SIZES[name]()


def test_mfu_is_six_flops_per_parameter_and_token_and_attention_over_the_peak():
    size = SIZES["qwen2_0_5b"]()
    found = ThroughputMeter(size, peak=1e15).step(_report(0, seconds=0.5), length=2048)
    # 494,032,768 parameters, the embedding as the output projection; 24 layers of 896 see half of 2,048 keys.
    flops = 6 * 494_032_768 + 6 * 24 * 896 * 2048
    assert found["tokens_per_second"] == 8192
    assert found["mfu"] == pytest.approx(8192 * flops / 1e15, rel=1e-9)
    without = 6 * (494_032_768 - 151_936 * 896) + 6 * 24 * 896 * 2048
    assert found["mfu.without_embeddings"] == pytest.approx(8192 * without / 1e15, rel=1e-9)


def test_metrics_leave_the_first_step_out_and_know_no_mfu_without_a_peak():
    result = fit(tiny_model(), language_modelling, number_batches, CONFIG)
    with_peak, without = (
        ThroughputMeter(size_of(tiny_model().config), peak=1e9),
        ThroughputMeter(size_of(tiny_model().config)),
    )
    for step, seconds in enumerate((9.0, 1.0, 2.0, 4.0)):
        with_peak.step(_report(step, seconds), 16)
        without.step(_report(step, seconds), 16)
    second = with_peak.step(_report(4, 2.0), 16)["mfu"]
    assert with_peak.metrics(result)["mfu"] == second
    assert without.metrics(result) == {"tokens_per_second": result.tokens_per_second}


def test_steps_of_a_process_alone_take_time_and_wait_for_nobody():
    reports = []
    result = fit(tiny_model(), language_modelling, number_batches, CONFIG, hooks=FitCallbacks(on_step=reports.append))
    assert [report.waited_seconds for report in reports] == [0.0] * CONFIG.steps
    assert sum(report.seconds for report in reports) == pytest.approx(result.seconds, rel=0.2)


def _with_a_late_worker(rank, size):
    def batches(start):
        for number, batch in enumerate(number_batches(start)):
            if rank == 1 and number == 1:
                time.sleep(_LATE_SECONDS)
            yield batch

    reports = []
    fit(tiny_model(), language_modelling, batches, CONFIG, hooks=FitCallbacks(on_step=reports.append))
    return [report.waited_seconds for report in reports]


def test_punctual_worker_knows_how_long_it_waited_for_the_late_one():
    waited = on_workers(2, _with_a_late_worker)
    assert waited[1] > 0.8 * _LATE_SECONDS
    assert waited[1] > max(waited[0], waited[2])
