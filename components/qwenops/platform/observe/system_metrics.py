"""Processor, memory, disk, network, and GPU memory and utilisation of a running stage, as MLflow's system metrics.

MLflow's own monitor samples and logs them (`system/...`, psutil; NVML where there is an NVIDIA GPU). Its monitor is
driven here without the fluent API, since the stage's run is not a global active one. The environment variable
`MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL` sets the seconds between samples, as MLflow documents; it is 10 otherwise.
"""

import contextlib
from collections.abc import Generator

from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

from qwenops.platform.context import RunContext
from qwenops.platform.mlflow.server import short_timeouts

# The last sample of a monitor whose server is gone is not worth more; its thread ends with the process.
_LAST_SECONDS = 20.0


@contextlib.contextmanager
def log_system_metrics(context: RunContext, node: str = "") -> Generator[None]:
    """Log this machine's system metrics into the stage's MLflow run while the block runs.

    Args:
        context: Tracking URI, and the stage's run in `stage_run_id`; nothing is monitored when it is empty.
        node: Names this machine in the metrics (`system/<node>/...`) where a stage has several; empty for its first.
    """
    if not context.stage_run_id:
        yield
        return
    monitor = _Monitor(
        context.stage_run_id,
        resume_logging=True,
        node_id=node or None,
        tracking_uri=context.tracking_uri,
    )
    monitor.start()
    try:
        yield
    finally:
        monitor.finish()


class _Monitor(SystemMetricsMonitor):
    """MLflow's monitor, which at its end would wait for a server that is gone as long as MLflow's client does."""

    def finish(self) -> None:
        """Stop sampling and log what is left; what a silent server holds up is lost."""
        self._shutdown_event.set()
        if self._process is not None:
            self._process.join(_LAST_SECONDS)
            if self._process.is_alive():
                return
        with short_timeouts():
            super().finish()
