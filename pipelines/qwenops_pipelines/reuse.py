"""Before a run on this machine: which nodes' artifacts can stay, and in words why the others are made again."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from qwenops.contracts.manifest import MANIFEST, Manifest, read_manifest
from qwenops.errors import ContractError
from qwenops.platform.context import RunContext
from qwenops.platform.identity.sources import reasons
from qwenops.platform.stage.events import Events
from qwenops.platform.stage.task import Task, find_published, sources_of
from qwenops.platform.storage import addresses
from qwenops.recipe.schema import Recipe, resolve
from qwenops_pipelines.dags.nodes import Node

_MOST_REASONS = 3


class ReusePlan:
    """What the store of a run holds for a recipe.

    Attributes:
        reused: Nodes whose published artifact, and whose inputs', are intact: node name to folder.
        rerun_reasons: Nodes of which there is an earlier artifact that cannot stay: node name to why, in a few words;
            empty where only what it reads is made again.
        causes: Node name to what its output follows from (`platform.identity.sources`).
    """

    def __init__(self, recipe: Recipe, context: RunContext, nodes: Sequence[Node]) -> None:
        self.reused: dict[str, Path] = {}
        self.rerun_reasons: dict[str, str] = {}
        self.causes: dict[str, Mapping[str, str]] = {}
        slices, sources = resolve(recipe), sources_of(context)
        for node in nodes:
            envelope = slices[node.name]
            known = {name: self.reused[source] for name, source in node.inputs.items() if source in self.reused}
            self.causes[node.name] = sources.causes(node.stage, envelope.config)
            task = Task(node.stage, envelope, known, self.causes[node.name])
            whole = len(known) == len(node.inputs)
            if whole and (published := find_published(task, context)):
                self.reused[node.name] = published.path
            elif earlier := _manifests(Path(context.store) / node.name):
                self.rerun_reasons[node.name] = _why(earlier, task, whole=whole)

    def record_reuse(self, context: RunContext) -> None:
        """Record among the run's events that every node which was found is reused, as its step would."""
        now = time.time()
        for node, path in self.reused.items():
            address = addresses.address_of(path, context)
            Events(Path(context.events), node).write(status="skipped", started=now, finished=now, artifact=address)

    def why(self, node: str) -> str:
        """For one node in a sentence, and for each it waits for that has a reason of its own."""
        if node in self.reused:
            return f"{node} is reused: {self.reused[node]}"
        if node not in self.rerun_reasons:
            return f"{node} has not been made yet"
        above = [f"{name} runs again: {why}" for name, why in self.rerun_reasons.items() if why and name != node]
        own = self.rerun_reasons[node] or "what it reads is made again"
        return "\n".join([f"{node} runs again: {own}", *above])

    def lines(self) -> list[str]:
        """For the console: a line for each node with a reason of its own, one for those that read these."""
        own = {node: why for node, why in self.rerun_reasons.items() if why}
        rest = [node for node, why in self.rerun_reasons.items() if not why]
        lines = [f"{node} again: {why}" for node, why in own.items()]
        return lines + ([f"again, for what they read: {', '.join(rest)}"] if rest else [])


def _why(earlier: Sequence[Manifest], task: Task, *, whole: bool) -> str:
    """How the task differs from the earlier artifact that is nearest to it."""
    parents = {name: read_manifest(path).artifact_id for name, path in task.inputs.items()}
    found = [reasons(manifest, task.causes, task.slice.config.model_dump(mode="json"), parents) for manifest in earlier]
    nearest = min(found, key=len)
    if not nearest and whole:
        return "its output is damaged, or something changed while it was made"
    more = f" and {len(nearest) - _MOST_REASONS} more" if len(nearest) > _MOST_REASONS else ""
    return ", ".join(nearest[:_MOST_REASONS]) + more


def _manifests(folder: Path) -> list[Manifest]:
    """The manifests of a node's artifacts, newest first, but for those that cannot be read."""
    found: list[Manifest] = []
    for path in folder.glob(f"[!.]*/{MANIFEST}"):
        try:
            found.append(read_manifest(path.parent))
        except ContractError:
            continue
    return sorted(found, key=lambda manifest: manifest.created_at, reverse=True)
