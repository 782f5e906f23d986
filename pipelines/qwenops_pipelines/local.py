"""`qwenops run`: the compiled DAG on one machine, through KFP's local runner in the installed environment.

This module runs the stages on what `services.py` starts for them, watches
the events for the console, and writes the run record and the report whatever the end is. A folder holds one
run at a time. Whether finished work is reused is the stages' own business (`platform.stage`).
"""

import contextlib
import fcntl
import itertools
import logging
import os
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TextIO

import psutil
from kfp import local

from qwenops.contracts.manifest import MANIFEST
from qwenops.errors import FAMILIES, PlatformError, QwenOpsError, RecipeError, StageError
from qwenops.platform.context import RunContext
from qwenops.platform.storage import artifacts
from qwenops.recipe.account import account_text
from qwenops.recipe.codec import canonical
from qwenops.recipe.mesh import mesh_text
from qwenops.recipe.placement import Placement
from qwenops.recipe.schema import Recipe
from qwenops_pipelines.dags.build import build
from qwenops_pipelines.dags.nodes import NODES, Node, ancestors
from qwenops_pipelines.local_models import check_models
from qwenops_pipelines.meshes import check_fit
from qwenops_pipelines.record import (
    RECIPE,
    Clock,
    artifact_folders,
    build_record,
    close_tracking,
    keep_record,
    publish_record,
    read_events,
)
from qwenops_pipelines.reuse import ReusePlan
from qwenops_pipelines.services import ENVIRONMENT, services
from qwenops_pipelines.stage_scheduler import nodes_sharing_processors, num_slots, run_ahead
from qwenops_pipelines.user_folders import cache_folder, tracking_address

_WATCH_SECONDS = 0.5
# The memory of one process of 330 MB took 5 ms to find out, so it is looked at less often.
_LOOKS_PER_SUM = 10


def run_local(recipe: Recipe, out: Path, placement: Placement, *, until: str = "report", restart: str = "") -> int:
    """Run `recipe` into `out`; returns the exit status.

    Args:
        recipe: What to train.
        out: Folder of the run; finished work in it is reused.
        placement: Where; on this machine only its worker count matters.
        until: Last node to run.
        restart: Node to make again, with all that depends on it, although its output is there; empty for none.

    Raises:
        RecipeError: the placement is a cluster's, or a model is not where the recipe says.
        QwenOpsError: the folder cannot be used, or a node failed (after the run record is written).
    """
    nodes = ancestors(until)
    if restart and restart not in {node.name for node in nodes}:
        raise RecipeError(
            f"{restart} comes after {until}",
            expected=f"one of {', '.join(node.name for node in nodes)}",
            found=f"--from {restart} --until {until}",
            action="give an earlier --from or a later --until",
        )
    if placement.artifact_root:
        raise RecipeError(
            f"placement {placement.name} is a cluster's",
            expected="a placement without artifact_root for a run on this machine, such as laptop",
            found=f"artifact_root {placement.artifact_root}",
            action=f"qwenops compile {recipe.name} --placement {placement.name} -o pipeline.yaml, then qwenops submit",
        )
    check_fit(recipe, placement)
    with locked(out):
        context = _context(out, placement, nodes)
        if restart:
            _forget(Path(context.store) / restart)
        began = time.time()
        for node in NODES:
            for stale in (Path(context.events) / f"{node.name}.json", Path(context.logs) / f"{node.name}.jsonl"):
                stale.unlink(missing_ok=True)
        # Before anything is looked up: what a hub id stands for is asked as the stages will.
        os.environ.update(ENVIRONMENT)
        plan = ReusePlan(recipe, context, nodes)
        todo = [node for node in nodes if node.name not in plan.reused]
        libraries = [plan.causes[node.name] for node in todo]
        check_models(recipe, [node.name for node in todo], Path(context.cache))
        print(
            f"{recipe.name}: {len(nodes)} stages, {len(nodes) - len(todo)} reused, {len(todo)} to run; output in {out}"
        )
        print(*(f"  {line}\n" for line in plan.lines()), sep="", end="", flush=True)
        with (
            services(context, recipe, out, todo, libraries) as ready,
            _console(ready, nodes) as watch,
            run_ahead(recipe, nodes, plan.reused, ready.slots) if todo else contextlib.nullcontext(),
        ):
            plan.record_reuse(ready)
            failure = _run_dag(recipe, placement, ready, out, until, plan.reused) if todo else None
        clock = Clock(began, time.time(), watch.peak_resident_bytes)
        artifacts = artifact_folders(read_events(Path(ready.events)), ready)
        record = build_record(recipe, ready.run_name, nodes, ready, clock, artifacts)
        publish_record(record, recipe, artifacts, out)
        keep_record(record, recipe, artifacts, out)
        close_tracking(record, ready, artifacts, out, "KILLED" if isinstance(failure, KeyboardInterrupt) else "FAILED")
    if isinstance(failure, KeyboardInterrupt):
        raise failure
    if failure is not None:
        raise _explain(record, failure)
    _say_goodbye(record, out)
    return 0


def explain_rerun(recipe: Recipe, out: Path, placement: Placement, stage: str) -> str:
    """Why a run of `recipe` into `out` would make a stage again, or that it would not; changes nothing."""
    nodes = ancestors(stage)
    os.environ.update(ENVIRONMENT)
    return ReusePlan(recipe, _context(out, placement, nodes), nodes).why(stage)


@contextlib.contextmanager
def locked(out: Path) -> Iterator[None]:
    """Hold the folder of a run, so that nothing else writes into it.

    Raises:
        PlatformError: it cannot be written, or a run holds it.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        handle = (out / ".lock").open("w")
    except OSError as error:
        raise PlatformError(
            f"cannot write {out}",
            expected="a writable output folder",
            found=error,
            action="choose another --out or change its permissions",
        ) from None
    with handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise PlatformError(
                f"another run is writing {out}",
                expected="one run per folder",
                found="a locked folder",
                action="wait for it to end, or give this run another --out",
            ) from None
        yield


def _context(out: Path, placement: Placement, nodes: tuple[Node, ...]) -> RunContext:
    folder, at_once = out.resolve(), num_slots(placement.num_workers)
    return RunContext(
        store=str(folder / "stages"),
        events=str(folder / "events"),
        cache=str(cache_folder(folder)),
        run_name=folder.name,
        tracking_uri=tracking_address(folder, placement),
        num_workers=placement.num_workers,
        mesh=mesh_text(placement.mesh),
        logs=str(folder / "logs"),
        account=account_text(placement),
        secrets=",".join(sorted(placement.secret_env)),
        slots=at_once,
        sharing=",".join(nodes_sharing_processors(nodes)) if at_once > 1 else "",
        # Two bars would draw over each other.
        show_bar="yes" if sys.stdout.isatty() and at_once == 1 else "no",
    )


def _run_dag(
    recipe: Recipe, placement: Placement, context: RunContext, out: Path, until: str, reused: Mapping[str, Path]
) -> BaseException | None:
    """Run what is not `reused` through KFP's local runner, whose talk goes to a log file; returns what stopped it."""
    logs = out / "logs"
    logs.mkdir(exist_ok=True)
    # By its path, because KFP's runner hands parameters on as arguments, which are short.
    text = str((out / RECIPE).resolve())
    artifacts.write_text(text, canonical(recipe))
    local.init(
        runner=local.SubprocessRunner(use_venv=False),
        pipeline_root=str(out / "kfp"),
        raise_on_error=True,
        enable_caching=False,
    )
    with (logs / "kfp.log").open("w", encoding="utf-8") as log, _captured(log):
        try:
            build(recipe, placement, until=until, reused=reused)(recipe_text=text, run_name=context.run_name)
        except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 - outer border: the record first, then this
            return error
    return None


@contextlib.contextmanager
def _captured(log: TextIO) -> Iterator[None]:
    with contextlib.redirect_stdout(log), contextlib.redirect_stderr(log):
        logging.disable(logging.INFO)
        try:
            yield
        finally:
            logging.disable(logging.NOTSET)


class _Watch(threading.Thread):
    """Prints a line when a stage ends and remembers the most memory the run's processes held."""

    def __init__(self, context: RunContext, nodes: tuple[Node, ...], out: TextIO) -> None:
        super().__init__(daemon=True)
        self.peak_resident_bytes = 0
        self._events, self._nodes, self._out = Path(context.events), nodes, out
        self._stopped = threading.Event()
        self._shown: set[str] = set()

    def run(self) -> None:
        """Look at the events and the processes until stopped."""
        for look in itertools.count():
            if look % _LOOKS_PER_SUM == 0:
                self.peak_resident_bytes = max(self.peak_resident_bytes, _resident_bytes())
            if self._stopped.wait(_WATCH_SECONDS):
                return
            self._look()

    def stop(self) -> None:
        """Look once more and end."""
        self._stopped.set()
        self.join()
        self._look()

    def _look(self) -> None:
        events = read_events(self._events)
        for place, node in enumerate(self._nodes, 1):
            facts = events.get(node.name)
            if facts and facts["status"] != "running" and node.name not in self._shown:
                self._shown.add(node.name)
                self._out.write(f"[{place:2d}/{len(self._nodes)}] {node.name:<13} {_outcome(facts)}\n")
                self._out.flush()


@contextlib.contextmanager
def _console(context: RunContext, nodes: tuple[Node, ...]) -> Iterator[_Watch]:
    watch = _Watch(context, nodes, sys.stdout)
    watch.start()
    try:
        yield watch
    finally:
        watch.stop()


def _outcome(facts: dict[str, Any]) -> str:
    if facts["status"] == "skipped":
        return "reused"
    took = f"{facts['run_finished'] - facts['run_started']:6.1f} s" if "run_finished" in facts else ""
    return f"{'done  ' if facts['status'] == 'succeeded' else 'FAILED'} {took}"


def _resident_bytes() -> int:
    """Memory of this process and all below it, a page that several hold counted once among them."""
    total = 0
    me = psutil.Process()
    for process in (me, *me.children(recursive=True)):
        with contextlib.suppress(psutil.Error):
            memory = process.memory_full_info()
            # Linux says what a process's part of shared pages is, other systems what it holds alone.
            total += getattr(memory, "pss", memory.uss)
    return total


def _forget(folder: Path) -> None:
    for manifest in folder.glob(f"*/{MANIFEST}"):
        manifest.unlink()


def _explain(record: dict[str, Any], failure: BaseException) -> QwenOpsError:
    for name, stage in record["stages"].items():
        if stage["status"] == "failed" and stage.get("error"):
            family = FAMILIES.get(stage["error"]["family"], StageError)
            return family(f"[{name}] {stage['error']['message']}")
    return StageError(
        "the pipeline stopped outside its stages", found=failure, action="see logs/kfp.log in the output folder"
    )


def _say_goodbye(record: dict[str, Any], out: Path) -> None:
    print(f"succeeded in {record['seconds']:.0f} s ({record['overhead_seconds']:.0f} s of it between stages)")
    print(f"report: {out / 'report.html'}\nrecord: {out / 'run.json'}\nruns:   qwenops ui")
    if record["model"]["path"]:
        gate = record["model"]["gate"]
        verdict = "\n        ".join(("passed" if gate["passed"] else "did not pass", *gate["reasons"]))
        print(f"gate:   {verdict}\nchat:   qwenops chat {out}")
