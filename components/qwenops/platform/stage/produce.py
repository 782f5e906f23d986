"""Run one stage in this process, account for it, publish it by rename.

The stage's `run` is imported only here, so that a reused stage costs no torch import. It is called in a fresh folder;
the manifest is written last and the folder published by one rename. A killed stage leaves its `scratch` folder, from
which training resumes. A store may be an `s3://` address: the stage then works on local copies, and `object_store`
publishes them.
"""

import contextlib
import importlib
import os
import shutil
import time
import uuid
from collections.abc import Callable, Generator
from datetime import UTC, datetime
from pathlib import Path

from qwenops.contracts.json_text import mend_json_files
from qwenops.contracts.manifest import Manifest, digest_files, read_manifest, write_manifest
from qwenops.errors import PlatformError, QwenOpsError, StageError
from qwenops.platform import logs
from qwenops.platform.context import RunContext
from qwenops.platform.identity.sources import differences, version_of
from qwenops.platform.observe.live import LIVE
from qwenops.platform.observe.observed import observe_stage
from qwenops.platform.stage.curves import publish_curves
from qwenops.platform.stage.events import Events, Facts, describe_error
from qwenops.platform.stage.handle import Stage
from qwenops.platform.stage.task import (
    Published,
    Task,
    artifact_location,
    provisional_fingerprint,
    scratch_folder,
    sources_of,
)
from qwenops.platform.storage import addresses, artifacts


def produce(task: Task, context: RunContext, *, job: str = "") -> Published:
    """Run the stage in this process and record its start and end among the run's events, with its RayJob if any.

    Raises:
        QwenOpsError: of the family that says whose fault it was.
    """
    events = Events(Path(context.events), task.slice.node)
    began: Facts = {"status": "running", "started": time.time(), "area": task.stage.split(".")[0]}
    if job:
        began["job"] = job
    events.write(**began)
    try:
        published = _produce(task, context, events)
    except BaseException as error:
        events.write(status="failed", finished=time.time(), error=describe_error(error))
        raise
    events.write(status="succeeded", finished=time.time(), artifact=published.address)
    return published


def _produce(task: Task, context: RunContext, events: Events) -> Published:
    node = task.slice.node
    _, destination = artifact_location(task, context)
    scratch = scratch_folder(destination)
    with _named_failures(node):
        scratch.mkdir(parents=True, exist_ok=True)
    with observe_stage(context, node, scratch) as watched:
        with _named_failures(node), _kept_scratch(scratch, watched):
            manifest = _make(task, watched, events, scratch)
            published = _publish(destination, watched)
        logs.event(f"{node} is published", address=published.address, figures=manifest.metrics)
        if context.tracking_uri:
            # MLflow takes seconds to import, which a run without it need not pay.
            from qwenops.platform.mlflow import tracking

            tracking.log_stage(watched, published.manifest, published.path)
    shutil.rmtree(scratch, ignore_errors=True)
    return published


def _make(task: Task, context: RunContext, events: Events, scratch: Path) -> Manifest:
    """Run the stage in a fresh folder, write the manifest last and rename the folder to its destination."""
    node = task.slice.node
    key, destination = artifact_location(task, context)
    run = _load_run(task.stage)
    work = destination.with_name(f".{key[:16]}.work")
    shutil.rmtree(work, ignore_errors=True)
    shutil.rmtree(destination, ignore_errors=True)
    work.mkdir(parents=True)
    handle = Stage(node, task.slice.seed, context, work, scratch)
    began = time.time()
    events.write(run_started=began)
    try:
        run(task.slice.config, **task.inputs, stage=handle)
    finally:
        events.write(run_finished=time.time())
    publish_curves(scratch, work)
    mend_json_files(work, handle.warn)
    now = sources_of(context).causes(task.stage, task.slice.config)
    changed = differences(task.causes, now) or differences(task.loaded or task.causes, now)
    if changed:
        handle.warn(f"{changed[0]} while {node} was made; the next run makes it again")
    manifest = Manifest(
        node=node,
        fingerprint=provisional_fingerprint(key) if changed else key,
        artifact_id=uuid.uuid4().hex,
        parents={name: read_manifest(path).artifact_id for name, path in task.inputs.items()},
        files=digest_files(work),
        records=handle.records,
        counts=handle.counts,
        metrics=handle.metrics,
        warnings=tuple(handle.warnings),
        seconds=time.time() - began,
        config=task.slice.config.model_dump(mode="json"),
        code_version=version_of(task.causes),
        causes=task.causes,
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
        inputs={name: addresses.address_of(path, context) for name, path in task.inputs.items()},
    )
    write_manifest(work, manifest)
    destination.with_name(f".{destination.name}{addresses.PUBLISHED_MARK}").touch()
    os.replace(work, destination)
    return manifest


def _publish(folder: Path, context: RunContext) -> Published:
    """Copy a finished folder to the object store, where the store is one; the artifact that counts is returned."""
    address = addresses.address_of(folder, context)
    if addresses.is_remote(address):
        store = artifacts.object_store()
        while not store.publish(folder, address):
            # Another pod was first. Its artifact counts if it is whole; what is damaged makes room.
            if store.fetch(address, folder):
                break
            store.delete(address)
    return Published(folder, read_manifest(folder), reused=False, address=address)


def _kept_scratch(scratch: Path, context: RunContext) -> contextlib.AbstractContextManager[None]:
    """A copy of the scratch folder in the object store while the stage runs, where the store is one."""
    address = addresses.address_of(scratch, context)
    if not addresses.is_remote(address):
        return contextlib.nullcontext()
    return artifacts.object_store().back_up_scratch(scratch, address, leave=LIVE)


@contextlib.contextmanager
def _named_failures(node: str) -> Generator[None]:
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
