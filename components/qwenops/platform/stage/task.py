"""One node to run, its fingerprint, and the artifact that a run with this fingerprint has published.

The fingerprint is of (causes, config slice, parents; `platform.identity` says what the causes are).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NotRequired, TypedDict

from qwenops.contracts.manifest import MANIFEST, Manifest, is_intact, read_manifest
from qwenops.platform.context import RunContext
from qwenops.platform.identity.sources import Sources
from qwenops.platform.stage.slices import read_slice
from qwenops.platform.storage import addresses, artifacts
from qwenops.recipe.codec import fingerprint
from qwenops.recipe.config import Config
from qwenops.recipe.slice import Slice

_MADE_BY = "made by "
SCRATCH = ".*.scratch"
"""Names of the scratch folders of a node, which lie beside its artifacts."""


class TaskSpec(TypedDict):
    """One node to run, as it travels between processes.

    `stage` is as in `Task`, `slice` the canonical text of a `slices.Reference` or of the `Slice` itself, `inputs` input
    name to the folder or the address of an artifact. `then` are the nodes that run after it in the same place; where
    one reads what a node before it makes, `made_by(node)` stands for the address.
    """

    stage: str
    slice: str
    inputs: dict[str, str]
    causes: NotRequired[dict[str, str]]
    then: NotRequired[list["TaskSpec"]]


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
    slice: Slice[Config]
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


def read_task(spec: TaskSpec, context: RunContext) -> Task:
    """The task that a spec names.

    The `causes` are the spec's where it has them: who launched the task looks for the artifact they lead to.
    """
    stage, envelope = spec["stage"], read_slice(spec["stage"], spec["slice"], context)
    causes = spec.get("causes") or sources_of(context).causes(stage, envelope.config)
    return Task(stage, envelope, _localized(spec["inputs"], context), causes)


def made_by(node: str) -> str:
    """What stands in a spec's inputs for the artifact of a node that runs before it in the same place."""
    return f"{_MADE_BY}{node}"


def do_in_turn(spec: TaskSpec, context: RunContext, do: Callable[[Task], Published | None]) -> list[Published]:
    """What `do` makes of the task of `spec` and then of those that follow it, which may read what came of them.

    It stops where `do` returns None.
    """
    made: dict[str, str] = {}
    found: list[Published] = []
    for one in (spec, *spec.get("then", ())):
        places = {name: made.get(place.removeprefix(_MADE_BY), place) for name, place in one["inputs"].items()}
        task = read_task({**one, "inputs": places}, context)
        published = do(task)
        if published is None:
            break
        made[task.slice.node] = published.address
        found.append(published)
    return found


def sources_of(context: RunContext) -> Sources:
    """The code on disk now, and where this run keeps and registers what it makes."""
    return Sources(Path(context.cache), tracking_uri=context.tracking_uri)


def find_published(task: Task, context: RunContext, *, made_now: bool = False) -> Published | None:
    """The published artifact of this very task, verified file by file, or None.

    Args:
        task: The task.
        context: Names the store.
        made_now: Also take one during whose making something changed, which no later run takes.
    """
    key, destination = artifact_location(task, context)
    address = addresses.address_of(destination, context)
    if addresses.is_remote(address):
        return _fetched(address, destination)
    if not (destination / MANIFEST).exists():
        return None
    manifest = read_manifest(destination)
    known = (key, provisional_fingerprint(key)) if made_now else (key,)
    if manifest.fingerprint in known and is_intact(destination, manifest):
        return Published(destination, manifest, reused=True, address=address)
    return None


def stage_fingerprint(causes: Mapping[str, str], envelope: Slice[Config], parents: Mapping[str, str]) -> str:
    """Fingerprint of one task: what its output follows from, its slice, and the ids of what it reads."""
    plain = envelope.model_dump(mode="json")
    return fingerprint({"causes": dict(causes), "slice": plain, "parents": dict(parents)})


def artifact_location(task: Task, context: RunContext) -> tuple[str, Path]:
    """The task's fingerprint and the folder its artifact is published to."""
    parents = {name: read_manifest(path).artifact_id for name, path in task.inputs.items()}
    key = stage_fingerprint(task.causes, task.slice, parents)
    return key, addresses.local_path(context.store, context) / task.slice.node / key[:16]


def scratch_folder(destination: Path) -> Path:
    """Where the stage that publishes to `destination` keeps what survives a kill."""
    return destination.with_name(SCRATCH.replace("*", destination.name))


def provisional_fingerprint(key: str) -> str:
    """The fingerprint of an artifact during whose making something changed that `key` covers."""
    return f"{key}?"


def _localized(inputs: Mapping[str, str], context: RunContext) -> dict[str, Path]:
    return {name: artifacts.local_copy(artifact_location, context) for name, artifact_location in inputs.items()}


def _fetched(address: str, folder: Path) -> Published | None:
    """The artifact of an object store, copied and verified. Its address names the task, so equal means the same."""
    if not artifacts.object_store().fetch(address, folder):
        return None
    return Published(folder, read_manifest(folder), reused=True, address=address)
