"""Everything that watches a running stage, around it in one block: logs, metrics to scrape, system metrics.

Each is off unless the context names it, and its library is imported only then: a laptop run pays for its log alone.
"""

import contextlib
import logging
from collections.abc import Callable, Generator
from dataclasses import replace
from functools import partial
from pathlib import Path

from qwenops.platform import logs
from qwenops.platform.context import RunContext
from qwenops.platform.observe.cost import read_account, spent
from qwenops.platform.observe.live import JobState

_YES = "yes"


@contextlib.contextmanager
def observe_stage(context: RunContext, node: str, scratch: Path) -> Generator[RunContext]:
    """Watch the stage `node` while the block runs.

    Args:
        context: Where logs go, which port serves metrics, whether system metrics are recorded.
        node: DAG node.
        scratch: The stage's scratch folder.

    Yields:
        The context to run the stage with: it names the MLflow run that was opened for the stage, if one was.
    """
    with contextlib.ExitStack() as stack:
        stack.enter_context(logs.logging_to(context, node))
        stack.enter_context(_ended(node))
        stack.enter_context(serve_metrics(context, lambda: (node, scratch)))
        if context.system_metrics == _YES and context.tracking_uri:
            context = stack.enter_context(_system_metrics(context, node))
        yield context


@contextlib.contextmanager
def serve_metrics(context: RunContext, stage: Callable[[], tuple[str, Path]]) -> Generator[JobState]:
    """Serve the figures of a stage, where the context names a port, from the process that runs or launches it.

    Args:
        context: Names the run and the port.
        stage: Asked for the DAG node that runs now and its scratch folder.

    Yields:
        What a launcher is to keep up to date about its RayJob; a stage that runs here leaves it alone.
    """
    if not context.metrics_port:
        yield JobState()
        return
    # prometheus_client, which only a pod that is scraped needs.
    from qwenops.platform.observe import openmetrics

    money = partial(_money, context)
    with openmetrics.exporting(context.metrics_port, context.run_name, stage, money) as job:
        yield job


@contextlib.contextmanager
def observe_worker(context: RunContext, node: str, machine: str) -> Generator[None]:
    """Watch one worker of a stage's training job: its log, and its machine's metrics when `machine` names one."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(logs.logging_to(context, node))
        if machine and context.stage_run_id:
            # MLflow, which a worker without it need not load.
            from qwenops.platform.observe import system_metrics

            stack.enter_context(system_metrics.log_system_metrics(context, machine))
        yield


@contextlib.contextmanager
def _ended(node: str) -> Generator[None]:
    logs.event(f"{node} starts")
    try:
        yield
    except BaseException as error:
        logs.event(f"{node} failed: {type(error).__name__}", level=logging.ERROR, error=error)
        raise
    logs.event(f"{node} ends")


@contextlib.contextmanager
def _system_metrics(context: RunContext, node: str) -> Generator[RunContext]:
    # MLflow takes seconds to import, which a run without system metrics need not pay.
    from qwenops.platform.mlflow import tracking
    from qwenops.platform.observe import system_metrics

    context = replace(context, stage_run_id=tracking.open_stage(context, node))
    try:
        with system_metrics.log_system_metrics(context):
            yield context
    except BaseException:
        tracking.fail_stage(context, node)
        raise


def _money(context: RunContext) -> tuple[float, float] | None:
    account = read_account(context.account)
    return (spent(Path(context.events), account), account.budget) if account else None
