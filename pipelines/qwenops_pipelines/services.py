"""What a run on this machine stands on: its environment, one Ray, one stage server, one MLflow parent run.

The shell that started the run may hold anything: no home, a temporary folder whose path no socket can have, the address
of a Ray that is gone. A run brings its own, and takes from the shell what it can use.
"""

import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from qwenops.errors import PlatformError
from qwenops.platform.context import RunContext
from qwenops.platform.ray.start import retry_start
from qwenops.recipe.codec import fingerprint
from qwenops.recipe.schema import Recipe
from qwenops_pipelines.dags.nodes import Node
from qwenops_pipelines.user_folders import artifact_root, home

_OBJECT_STORE_BYTES = 300 * 2**20
# Linux holds 107 bytes of a socket's path; Ray makes its sockets this far below its folder.
_SOCKET_BYTES = 107
_DEEPEST = "ray/session_2026-01-01_00-00-00_000000_0000000/sockets/plasma_store"
_SHORT = ("/tmp", "/var/tmp", "/dev/shm")
# What stages import late, to the library whose use by a stage says that it needs it.
_LATE = {
    "great_expectations": "great_expectations",
    "transformers.models.qwen2.modeling_qwen2": "transformers",
    "transformers.models.qwen2_moe.modeling_qwen2_moe": "transformers",
}
# What MLflow's client imports when it opens a database.
_TRACKING = ("mlflow", "mlflow.store.tracking.sqlalchemy_store", "mlflow.store.db.utils", "alembic.command")
# A training step frees and takes the same large blocks again; returning their pages to the system in between cost a
# sixth of a step (0.44 s of processor time against 0.37 s, forward and backward of the tiny model, one core).
ALLOCATOR = {
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": str(2**30),
    "MALLOC_TOP_PAD_": str(2**26),
}
# Background reporters of these libraries start threads (unsafe before a fork) or call home; neither belongs in a run.
ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ASYNC_LOGGING": "false",
    "GX_ANALYTICS_ENABLED": "false",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_TRAIN_V2_ENABLED": "1",
    "RAY_AUTH_MODE": "disabled",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "TOKENIZERS_PARALLELISM": "false",
    # The console belongs to `platform.progress`; a bar of a library's would draw across it.
    "TQDM_DISABLE": "1",
    # Loops that gain from more threads measure how many; elsewhere two on a shared core can be ten times slower.
    "OMP_NUM_THREADS": "1",
    "PYTHONWARNINGS": "ignore",
    **ALLOCATOR,
}


@contextlib.contextmanager
def services(
    context: RunContext, recipe: Recipe, out: Path, todo: Sequence[Node], libraries: Sequence[Collection[str]]
) -> Iterator[RunContext]:
    """Start Ray, the stage server and the MLflow parent run as far as something needs them; stop them at the end.

    Args:
        context: Where the run goes on.
        recipe: What runs.
        out: Folder of the run.
        todo: Nodes that are left to compute; without any, nothing starts.
        libraries: For each of them, the names of the libraries that its stage imports, among others.

    Yields:
        The context that the stages get.
    """
    temporary = _socket_folder()
    with contextlib.ExitStack() as stack, tempfile.TemporaryDirectory(prefix="qwenops-", dir=temporary) as scratch:
        os.environ["HOME"] = str(home() or scratch)
        # Of the shell's Ray, which may be gone; every process of this run is told the address of the run's own.
        os.environ.pop("RAY_ADDRESS", None)
        if todo:
            context = replace(context, stage_server=str(Path(scratch) / "stages.sock"))
            parent = _open_tracking(context, recipe, out)
            address = _start_ray(stack, temporary) if context.num_workers else ""
            context = replace(context, ray_address=address, parent_run_id=parent)
            os.environ.update(context.to_environment())
            _start_stage_server(context, stack, _preloaded(todo, libraries))
        os.environ.update(context.to_environment())
        yield context


def _socket_folder() -> Path:
    """The first temporary folder that can be written and that leaves room for the paths of sockets below it.

    Raises:
        PlatformError: there is none.
    """
    named = [os.environ.get("RAY_TMPDIR", ""), tempfile.gettempdir(), *_SHORT]
    for name in filter(None, named):
        deepest = os.fsencode(Path(name).absolute() / _DEEPEST)
        if len(deepest) <= _SOCKET_BYTES and os.access(name, os.W_OK | os.X_OK):
            return Path(name).absolute()
    raise PlatformError(
        "no temporary folder can hold the sockets of a run",
        expected=f"a writable folder whose path is at most {_SOCKET_BYTES - len(_DEEPEST) - 1} bytes long",
        found=", ".join(filter(None, named)),
        action="export RAY_TMPDIR=FOLDER",
    )


def _start_ray(stack: contextlib.ExitStack, temporary: Path) -> str:
    # Ray and MLflow take seconds to import, which a fully reused run need not pay.
    import ray

    def start() -> None:
        ray.init(
            address="local",
            _temp_dir=str(temporary / "ray"),
            num_cpus=os.cpu_count(),
            include_dashboard=False,
            object_store_memory=_OBJECT_STORE_BYTES,
            log_to_driver=False,
            configure_logging=False,
        )

    try:
        retry_start(start)
    except Exception as error:
        raise PlatformError(
            "Ray did not start on this machine",
            expected=f"a node within seconds, its files below {temporary / 'ray'}",
            found=error,
            action="look at its logs there, free processors and memory, then run again",
        ) from error
    stack.callback(ray.shutdown)
    return ray.get_runtime_context().gcs_address


def _open_tracking(context: RunContext, recipe: Recipe, out: Path) -> str:
    from qwenops.platform.mlflow import facts, tracking

    parent = tracking.open_run(
        tracking_uri=context.tracking_uri,
        artifact_root=str(artifact_root(context.tracking_uri, out.resolve())),
        run_name=context.run_name,
        recipe_name=recipe.name,
        fingerprint=fingerprint(recipe),
        params=recipe.model_dump(mode="json"),
        tags=facts.hardware_tags(),
    )
    # A registry that refuses models is found now and not after the training.
    from qwenops.platform.mlflow import registry

    registry.check_registry(context.tracking_uri, parent)
    return parent


def _preloaded(todo: Sequence[Node], libraries: Sequence[Collection[str]]) -> list[str]:
    """The stages with all that they import, in running order; MLflow when the first of them is to be recorded."""
    found: list[str] = []
    for node, names in zip(todo, libraries, strict=True):
        found += [f"qwenops.{node.stage}.run", *(module for module, library in _LATE.items() if library in names)]
        if node is todo[0]:
            found += _TRACKING
    return list(dict.fromkeys(found))


def _start_stage_server(context: RunContext, stack: contextlib.ExitStack, modules: Sequence[str]) -> None:
    command = [sys.executable, "-m", "qwenops.platform.launch.serve_stages", context.stage_server, *modules]
    server = subprocess.Popen(command)
    stack.callback(server.wait)
    stack.callback(server.terminate)
    while not Path(context.stage_server).exists():
        if server.poll() is not None:
            raise PlatformError(
                "the stage server did not start",
                expected="a listening socket",
                found=f"exit status {server.returncode}",
                action="run `qwenops doctor`",
            )
        time.sleep(0.05)
