"""Run one stage: reuse finished work, account for it, publish it by rename.

Both backends call `execute`. It computes the fingerprint of (causes, config slice, parents; `platform.identity` says
what the causes are), returns the published artifact when one with that fingerprint is intact, and otherwise imports the
stage's `run`
(only then: a reused stage costs no torch import), calls it in a fresh folder, writes the manifest last and
publishes the folder by one rename. A killed stage leaves its `scratch` folder, from which training resumes.
A store may be an `s3://` address: the stage then works on local copies, and `object_store` publishes them.
"""

import contextlib
import importlib
import json
import logging
import math
import os
import shutil
import time
import traceback
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from qwenops.contracts.manifest import MANIFEST, Manifest, digest_files, is_intact, read_manifest, write_manifest
from qwenops.contracts.metrics import check_metric
from qwenops.errors import ContractError, PlatformError, QwenOpsError, StageError
from qwenops.platform import kfp_artifacts, logs, slices, storage
from qwenops.platform.context import RunContext
from qwenops.platform.identity import Sources, differences, read_config, version_of
from qwenops.platform.live import LIVE, Live
from qwenops.platform.observe import observed
from qwenops.platform.progress import Progress
from qwenops.platform.secrets import redact
from qwenops.platform.slices import Slice
from qwenops.recipe.codec import fingerprint

CURVES = "curves.jsonl"


@dataclass
class Stage:
    """What a stage's `run` is given beside its config and inputs, and where it reports to.

    Attributes:
        node: DAG node name; differs from the stage's folder only where a stage runs twice.
        seed: The recipe's seed.
        context: Where this runs.
        out: Folder to write the outputs into; published when `run` returns.
        scratch: Folder that survives a kill; checkpoints to resume from live here. Removed on success.
    """

    node: str
    seed: int
    context: RunContext
    out: Path
    scratch: Path
    records: int = 0
    counts: dict[str, Any] = field(default_factory=dict[str, Any])
    metrics: dict[str, float] = field(default_factory=dict[str, float])
    warnings: list[str] = field(default_factory=list[str])

    def __post_init__(self) -> None:
        self._broken = set[str]()
        self._live = Live(self.scratch / LIVE if self.context.metrics_port else None)

    def metric(self, name: str, value: float) -> None:
        """Record one figure of this stage; `name` must be listed in `contracts.metrics`.

        What is no finite number is no measurement: it is left out with a warning, and no rule of the gate passes on it.
        """
        check_metric(name)
        if math.isfinite(value):
            self.metrics[name] = float(value)
        else:
            self.warn(f"{name} is {value}, no finite number, and is left out")

    def curve(self, name: str, step: int, value: float) -> None:
        """Append one point of a curve (loss over steps, say) to `curves.jsonl`; goes to MLflow and the report.

        A point that is no finite number is left out, with a warning at the first one of a curve.
        """
        if math.isfinite(value):
            line = json.dumps({"name": name, "step": step, "value": float(value)})
            with (self.out / CURVES).open("a", encoding="utf-8") as stream:
                stream.write(line + "\n")
        elif name not in self._broken:
            self._broken.add(name)
            self.warn(f"the curve {name} is {value} at step {step}; points that are no finite number are left out")
        self._live.point(name, step, value)
        logs.at_step(step)

    def count(self, *, read: int, kept: int, dropped: Mapping[str, int]) -> None:
        """Account for every record: `kept + sum(dropped) == read`.

        Raises:
            ContractError: the numbers do not add up.
        """
        if kept + sum(dropped.values()) != read:
            raise ContractError(
                f"{self.node} lost records",
                expected=f"kept + dropped == read == {read}",
                found=f"{kept} + {dict(dropped)}",
                action="report this; the stage dropped a record without a reason",
            )
        self.counts = {"read": read, "kept": kept, "dropped": dict(dropped)}
        self.records = kept

    def warn(self, sentence: str) -> None:
        """Add a sentence to the run record's warnings and print it."""
        sentence = redact(sentence)
        self.warnings.append(sentence)
        logs.event(sentence, level=logging.WARNING)
        if not logs.in_pod(self.context):
            print(f"[{self.node}] warning: {sentence}", flush=True)

    def progress(self, total: int, unit: str) -> Progress:
        """A progress display over `total` units; `advance` it, close it (or use it as a context manager)."""

        def watch(done: int, total: int, rate: float, note: str) -> None:
            self._live.rate(unit, rate)
            logs.event("progress", done=done, total=total, unit=unit, per_second=round(rate, 3), note=note)

        plain = not logs.in_pod(self.context)
        return Progress(self.node, total, unit, bar=self.context.show_bar == "yes", plain=plain, watch=watch)


@dataclass(frozen=True)
class Task:
    """One node to run.

    Attributes:
        stage: Dotted place below `qwenops`, for example "data.dedup".
        slice: Its slice.
        inputs: Input name to the folder of the artifact it reads.
        causes: What its output follows from beside these; see `identity.Sources.causes`.
        loaded: The same of the code that this process has imported, where that may be older than the files.
    """

    stage: str
    slice: Slice
    inputs: Mapping[str, Path]
    causes: Mapping[str, str]
    loaded: Mapping[str, str] | None = None


@dataclass(frozen=True)
class Published:
    """A finished artifact: its local folder, its manifest, whether it was there already, and its address.

    The address is the folder, or an `s3://` address whose verified copy the folder is.
    """

    path: Path
    manifest: Manifest
    reused: bool
    address: str


def execute(
    stage: str, slice_text: str, inputs: Mapping[str, str | Path], output: Any = None, **shown: Any
) -> Published:
    """Run (or reuse) the stage `area.folder` under the context of this process's environment.

    Args:
        stage: Dotted place below `qwenops`, for example "data.dedup".
        slice_text: Canonical JSON of a `slices.Reference`, or of the `Slice` itself.
        inputs: Input name to a published artifact: its folder, its address, or the file of the step that made it.
        output: A KFP artifact, or None; its file will say where the artifact lies.
        shown: Further KFP artifacts of the task, filled by `kfp_artifacts.fill`.

    Raises:
        QwenOpsError: of the family that says whose fault it was; also recorded among the run's events.
    """
    context = RunContext.from_environment()
    places = {name: kfp_artifacts.address_of(place) for name, place in inputs.items()}
    message = {"stage": stage, "slice": slice_text, "inputs": places}
    task = read_task(message, context)
    events = Events(Path(context.events), task.slice.node)
    events.write(status="running", started=time.time())
    published = find_published(task, context)
    if published:
        events.write(status="skipped", finished=time.time(), artifact=published.address)
    else:
        message["causes"] = dict(task.causes)
        # Launchers stand on this module.
        published = importlib.import_module("qwenops.platform.launchers").pick(context).launch(message, context)
    kfp_artifacts.fill(published.path, published.manifest, context, address=published.address, output=output, **shown)
    return published


def answer(message: Mapping[str, Any], loaded: Sources) -> dict[str, Any]:
    """Run the stage that a `message` to the stage server names; returns where it lies, or the error.

    `loaded` is the code as it was when the server started, part of which it has imported.
    """
    context = RunContext.from_environment()
    try:
        task = read_task(message, context)
        published = produce(replace(task, loaded=causes_of(task.stage, task.slice, loaded)), context)
    except QwenOpsError as error:
        return {"error": describe_error(error)}
    return {"path": str(published.path)}


def read_task(message: Mapping[str, Any], context: RunContext) -> Task:
    """The task that a message to a launcher names by `stage`, `slice` and `inputs` (folders or addresses).

    The `causes` are the message's where it has them: who launched the task looks for the artifact they lead to.
    """
    stage, envelope = message["stage"], slices.read(message["slice"], context)
    causes = message.get("causes") or causes_of(stage, envelope, Sources(Path(context.cache)))
    return Task(stage, envelope, _localized(message["inputs"], context), causes)


def causes_of(stage: str, envelope: Slice, sources: Sources) -> dict[str, str]:
    """What the output of a stage with this slice follows from, beside its config and inputs.

    Raises:
        RecipeError: the slice holds no config of the stage.
    """
    return sources.causes(stage, read_config(stage, envelope.config, envelope.node))


def produce(task: Task, context: RunContext, **facts: Any) -> Published:
    """Run the stage in this process and record its start and end among the run's events, with `facts`.

    Raises:
        QwenOpsError: of the family that says whose fault it was.
    """
    events = Events(Path(context.events), task.slice.node)
    events.write(status="running", started=time.time(), area=task.stage.split(".")[0], **facts)
    try:
        published = _produce(task, context, events)
    except BaseException as error:
        events.write(status="failed", finished=time.time(), error=describe_error(error))
        raise
    events.write(status="succeeded", finished=time.time(), artifact=published.address)
    return published


def find_published(task: Task, context: RunContext, *, made_now: bool = False) -> Published | None:
    """The published artifact of this very task, verified file by file, or None.

    Args:
        task: The task.
        context: Names the store.
        made_now: Also take one during whose making something changed, which no later run takes.
    """
    key, destination = place(task, context)
    address = storage.address(destination, context)
    if storage.is_remote(address):
        return _fetched(address, destination)
    if not (destination / MANIFEST).exists():
        return None
    manifest = read_manifest(destination)
    known = (key, _unsure(key)) if made_now else (key,)
    if manifest.fingerprint in known and is_intact(destination, manifest):
        return Published(destination, manifest, reused=True, address=address)
    return None


def stage_fingerprint(causes: Mapping[str, str], envelope: Slice, parents: Mapping[str, str]) -> str:
    """Fingerprint of one task: what its output follows from, its slice, and the ids of what it reads."""
    plain = envelope.model_dump(mode="json")
    return fingerprint({"causes": dict(causes), "slice": plain, "parents": dict(parents)})


def describe_error(error: BaseException) -> dict[str, str]:
    """An error as plain data: family, message, traceback."""
    family = type(error).__name__ if isinstance(error, QwenOpsError) else "StageError"
    return {
        "family": family,
        "message": redact(str(error)) or type(error).__name__,
        "traceback": redact("".join(traceback.format_exception(error))),
    }


class Events:
    """One JSON file per node of a run, replaced atomically: what the run record and the console are made from."""

    def __init__(self, folder: Path, node: str) -> None:
        self._path = folder / f"{node}.json"
        self._facts: dict[str, Any] = {"node": node}

    def write(self, **facts: Any) -> None:
        """Add `facts` and publish the file."""
        self._facts |= facts
        self._path.parent.mkdir(parents=True, exist_ok=True)
        temporary = self._path.with_suffix(".tmp")
        temporary.write_text(json.dumps(self._facts), encoding="utf-8")
        temporary.replace(self._path)


def place(task: Task, context: RunContext) -> tuple[str, Path]:
    """The task's fingerprint and the folder its artifact is published to."""
    parents = {name: read_manifest(path).artifact_id for name, path in task.inputs.items()}
    key = stage_fingerprint(task.causes, task.slice, parents)
    return key, storage.mirror(context.store, context) / task.slice.node / key[:16]


def scratch_folder(destination: Path) -> Path:
    """Where the stage that publishes to `destination` keeps what survives a kill."""
    return destination.with_name(f".{destination.name}.scratch")


def _localized(inputs: Mapping[str, str | Path], context: RunContext) -> dict[str, Path]:
    return {name: storage.localized(place, context) for name, place in inputs.items()}


def _fetched(address: str, folder: Path) -> Published | None:
    """The artifact of an object store, copied and verified. Its address names the task, so equal means the same."""
    if not storage.object_store().fetch(address, folder):
        return None
    return Published(folder, read_manifest(folder), reused=True, address=address)


def _produce(task: Task, context: RunContext, events: Events) -> Published:
    node = task.slice.node
    _, destination = place(task, context)
    scratch = scratch_folder(destination)
    with _named_failures(node):
        scratch.mkdir(parents=True, exist_ok=True)
    with observed(context, node, scratch) as watched:
        with _named_failures(node), _kept_scratch(scratch, watched):
            manifest = _make(task, watched, events, scratch)
            published = _publish(destination, watched)
        logs.event(f"{node} is published", address=published.address, figures=manifest.metrics)
        if context.tracking_uri:
            tracking = importlib.import_module("qwenops.platform.tracking")
            tracking.log_stage(watched, published.manifest, published.path)
    shutil.rmtree(scratch, ignore_errors=True)
    return published


def _make(task: Task, context: RunContext, events: Events, scratch: Path) -> Manifest:
    """Run the stage in a fresh folder, write the manifest last and rename the folder to its destination."""
    node = task.slice.node
    key, destination = place(task, context)
    run, config = _load_run(task.stage), read_config(task.stage, task.slice.config, node)
    work = destination.with_name(f".{key[:16]}.work")
    shutil.rmtree(work, ignore_errors=True)
    shutil.rmtree(destination, ignore_errors=True)
    work.mkdir(parents=True)
    handle = Stage(node, task.slice.seed, context, work, scratch)
    began = time.time()
    events.write(run_started=began)
    try:
        run(config, **task.inputs, stage=handle)
    finally:
        events.write(run_finished=time.time())
    now = causes_of(task.stage, task.slice, Sources(Path(context.cache)))
    changed = differences(task.causes, now) or differences(task.loaded or task.causes, now)
    if changed:
        handle.warn(f"{changed[0]} while {node} was made; the next run makes it again")
    manifest = Manifest(
        node=node,
        fingerprint=_unsure(key) if changed else key,
        artifact_id=uuid.uuid4().hex,
        parents={name: read_manifest(path).artifact_id for name, path in task.inputs.items()},
        files=digest_files(work),
        records=handle.records,
        counts=handle.counts,
        metrics=handle.metrics,
        warnings=tuple(handle.warnings),
        seconds=time.time() - began,
        config=task.slice.config,
        code_version=version_of(task.causes),
        causes=task.causes,
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
        inputs={name: storage.address(path, context) for name, path in task.inputs.items()},
    )
    write_manifest(work, manifest)
    destination.with_name(f".{destination.name}{storage.MADE}").touch()
    os.replace(work, destination)
    return manifest


def _publish(folder: Path, context: RunContext) -> Published:
    """Copy a finished folder to the object store, where the store is one; the artifact that counts is returned."""
    address = storage.address(folder, context)
    if storage.is_remote(address):
        store = storage.object_store()
        while not store.publish(folder, address):
            # Another pod was first. Its artifact counts if it is whole; what is damaged makes room.
            if store.fetch(address, folder):
                break
            store.forget(address)
    return Published(folder, read_manifest(folder), reused=False, address=address)


def _kept_scratch(scratch: Path, context: RunContext) -> contextlib.AbstractContextManager[None]:
    """A copy of the scratch folder in the object store while the stage runs, where the store is one."""
    address = storage.address(scratch, context)
    return storage.object_store().keeping(scratch, address) if storage.is_remote(address) else contextlib.nullcontext()


@contextlib.contextmanager
def _named_failures(node: str) -> Iterator[None]:
    """Give a failure that is not ours the family that says whose fault it is."""
    try:
        yield
    except QwenOpsError:
        raise
    except OSError as error:
        raise PlatformError(
            f"{node} could not read or write",
            expected="readable inputs and a writable folder with free space",
            found=error,
            action="free some space or choose another --out, then run again; finished stages are kept",
        ) from error
    except Exception as error:
        raise StageError(
            f"{node} failed",
            expected="the stage to finish",
            found=f"{type(error).__name__}: {error}",
            action="run again with --debug for the traceback",
        ) from error


def _load_run(stage: str) -> Callable[..., None]:
    return importlib.import_module(f"qwenops.{stage}.run").run


def _unsure(key: str) -> str:
    """The fingerprint of an artifact during whose making something changed that `key` covers."""
    return f"{key}?"
