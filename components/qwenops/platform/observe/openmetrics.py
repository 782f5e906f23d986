"""What Prometheus scrapes while a stage runs: progress, loss, cost against budget, and what a RayJob still holds.

Every figure is read when it is asked for: the stage's own from its live file, the cost from the run's events. So the
process that answers need not be the one that trains, and nothing is counted between scrapes. The names are
those of the chart's alert rules and dashboard; every sample carries the labels `run` and `stage`.
"""

import contextlib
import logging
from collections.abc import Callable, Generator, Iterator
from pathlib import Path

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from qwenops.platform import logs
from qwenops.platform.observe.live import LIVE, JobState, LiveState, read_live

_LABELS = ("run", "stage")


class StageCollector(Collector):
    """Reads the stage that runs.

    Args:
        run: Name of the pipeline run.
        stage: Asked for its DAG node and its scratch folder, where its live file lies.
        job: State of its RayJob, changed by whoever launched it.
        money: Cost of the whole run so far and its budget (0 is none); None where no prices are known.
    """

    def __init__(
        self,
        run: str,
        stage: Callable[[], tuple[str, Path]],
        job: JobState,
        money: Callable[[], tuple[float, float] | None],
    ) -> None:
        self._run, self._stage_now, self._job, self._money = run, stage, job, money
        self._labels = (run, "")

    def collect(self) -> Iterator[Metric]:
        """The families that have a value now."""
        node, scratch = self._stage_now()
        self._labels = (self._run, node)
        money = self._money()
        yield from self._stage(read_live(scratch / LIVE))
        for name, text, value in (
            ("rayjob_terminal_timestamp_seconds", "When the stage's RayJob ended.", self._job.terminal_timestamp),
            ("rayjob_quota_held", "1 while the cluster keeps resources for the RayJob.", self._job.quota_held),
            ("run_cost", "Cost of the run so far, in the placement's currency.", money and money[0]),
            ("run_budget", "What the run may cost; 0 is no limit.", money and money[1]),
        ):
            yield from self._gauge(name, text, value)

    def _stage(self, state: LiveState) -> Iterator[Metric]:
        for name, text, value in (
            ("stage_last_step_timestamp_seconds", "When the stage last advanced.", state.last_step_timestamp),
            ("stage_step", "Step of the last point of a curve.", state.step),
            ("stage_loss", "Last recorded loss.", state.loss),
            ("stage_tokens_per_second", "Tokens per second since the stage began or resumed.", state.tokens_per_second),
        ):
            yield from self._gauge(name, text, value)
        counter = CounterMetricFamily(
            "qwenops_stage_nonfinite", "Recorded losses that are no finite number.", labels=_LABELS
        )
        counter.add_metric(self._labels, state.nonfinite)
        yield counter

    def _gauge(self, name: str, text: str, value: float | bool | None) -> Iterator[Metric]:
        if value is not None:
            family = GaugeMetricFamily(f"qwenops_{name}", text, labels=_LABELS)
            family.add_metric(self._labels, float(value))
            yield family


@contextlib.contextmanager
def exporting(
    port: int, run: str, stage: Callable[[], tuple[str, Path]], money: Callable[[], tuple[float, float] | None]
) -> Generator[JobState]:
    """Serve `/metrics` on `port` while the block runs; a port that is taken costs a warning, not the stage.

    Args:
        port: TCP port on all interfaces of the pod.
        run: Name of the pipeline run.
        stage: As for `StageCollector`.
        money: As for `StageCollector`.
    """
    job, registry = JobState(), CollectorRegistry()
    registry.register(StageCollector(run, stage, job, money))
    with contextlib.ExitStack() as stack:
        try:
            server, thread = start_http_server(port, registry=registry)
        except OSError as error:
            logs.event(f"no metrics are served on port {port}: {error}", level=logging.WARNING)
        else:
            for end in (thread.join, server.server_close, server.shutdown):
                stack.callback(end)
        yield job
