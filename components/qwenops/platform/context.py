"""What a stage must know about where it runs, read from the environment once.

`qwenops run` sets these variables on a laptop, the DAG's placement sets them on a cluster; nothing below
`platform/` reads the environment, so a stage behaves the same in both places.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from qwenops.errors import PlatformError
from qwenops.recipe.codec import decode
from qwenops.recipe.mesh import ParallelConfig

_PREFIX = "QWENOPS_"
OPENED = "opened.run"
"""File among the events in which the first step of a run on a cluster leaves what the others must know."""


@dataclass(frozen=True)
class RunContext:
    """Where a stage runs. Nothing here may change what it produces.

    Attributes:
        store: Root of the artifacts; a node's outputs lie in `store/<node>/<fingerprint>`.
        events: Folder that receives one JSON file per node: status, times, artifact, error.
        cache: Downloads shared by all runs of this user.
        run_name: Name of the pipeline run.
        tracking_uri: MLflow's tracking URI; empty for none.
        parent_run_id: The MLflow run that the stage's run is nested under; empty for none.
        ray_address: Address of the running Ray; empty for none: pieces of work run in forks, workers start a local one.
        num_workers: Ray Train workers; 0 runs the training loop in the stage's own process.
        mesh: How the workers divide a model (`recipe.mesh.ParallelConfig`) as canonical JSON; empty for the default.
        use_gpu: Whether training workers ask for a GPU: "yes" or "no".
        stage_server: Socket of the server that runs stages in forks of a warm process; empty for none.
        slots: Stages that this server runs at once.
        sharing: Nodes that compute on one slot's part of the processors, separated by commas; others have them all.
        show_bar: "yes" draws a progress bar, "no" prints plain lines.
        run_id: Unique id of the pipeline run; on a cluster its events lie in a folder of that name.
        cluster: The Ray cluster that runs this stage as a RayJob, as JSON text of a `RayCluster`; empty runs it here.
        pod_name: Name of this step's pod; empty outside a cluster.
        pod_namespace: Its namespace.
        logs: Folder that receives `<node>.jsonl`; "stderr" writes JSON lines there, not plain ones; empty for none.
        metrics_port: Port that serves OpenMetrics while a stage runs; 0 for none.
        system_metrics: Whether a stage's MLflow run records processor, memory and GPU use: "yes" or "no".
        stage_run_id: MLflow run opened for the stage before it ran; empty opens one at its end.
        account: Prices, budget and demands (`recipe.prices.Account`) as canonical JSON; empty for none.
        secrets: Names of the environment variables that hold secrets, separated by commas.
    """

    store: str
    events: str
    cache: str
    run_name: str = "run"
    tracking_uri: str = ""
    parent_run_id: str = ""
    ray_address: str = ""
    num_workers: int = 0
    mesh: str = ""
    use_gpu: str = "no"
    stage_server: str = ""
    slots: int = 1
    sharing: str = ""
    show_bar: str = "no"
    run_id: str = ""
    cluster: str = ""
    pod_name: str = ""
    pod_namespace: str = ""
    logs: str = ""
    metrics_port: int = 0
    system_metrics: str = "no"
    stage_run_id: str = ""
    account: str = ""
    secrets: str = ""

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> "RunContext":
        """Read the context from `QWENOPS_*` variables.

        Raises:
            PlatformError: a variable that has no default is missing.
        """
        env = os.environ if environment is None else environment
        values: dict[str, Any] = {}
        for item in fields(cls):
            text = env.get(_PREFIX + item.name.upper())
            if text is not None:
                values[item.name] = int(text) if item.type is int else text
        missing = [name for name in ("store", "events", "cache") if name not in values]
        if missing:
            raise PlatformError(
                "this process was not started by a run",
                expected=", ".join(_PREFIX + name.upper() for name in missing),
                found="unset",
                action="start stages through `qwenops run` or a compiled pipeline",
            )
        context = cls(**values)
        if context.run_id and Path(context.events).name != context.run_id:
            context = replace(context, events=str(Path(context.events) / context.run_id))
        return context._with_opened_run()

    def to_environment(self) -> dict[str, str]:
        """The variables from which `from_environment` rebuilds this context."""
        return {_PREFIX + name.upper(): str(value) for name, value in asdict(self).items()}

    @property
    def parallel(self) -> ParallelConfig:
        """The mesh of this stage's workers."""
        return decode(ParallelConfig, self.mesh) if self.mesh else ParallelConfig()

    def cache_folder(self, name: str) -> Path:
        """A folder for downloads of one kind; made when missing."""
        folder = Path(self.cache) / name
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def _with_opened_run(self) -> "RunContext":
        """On a cluster: nested under the MLflow run that the first step opened, unless a parent run is named."""
        opened = Path(self.events) / OPENED
        if not self.run_id or self.parent_run_id or not opened.is_file():
            return self
        return replace(self, parent_run_id=json.loads(opened.read_text(encoding="utf-8"))["parent_run_id"])
