"""Artifacts of an earlier run, for a pipeline that does not start at the raw pages.

The search goes from the last needed node back to the first, and follows what each artifact says it was made from: a
base model is taken up with the very tokenizer it was trained with, and not with the newest one.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from qwenops.contracts.manifest import read_manifest
from qwenops.errors import ContractError
from qwenops.platform.context import RunContext
from qwenops.platform.launch import kfp_artifacts
from qwenops.platform.storage import addresses, artifacts
from qwenops.recipe.config import Config
from qwenops.recipe.slice import Slice
from qwenops_pipelines.dags.nodes import NODES
from qwenops_pipelines.dags.pipelines import PIPELINES
from qwenops_pipelines.steps.failures import recorded


def find_artifacts(
    needed: Sequence[str], slices: Mapping[str, Slice[Config]], context: RunContext, start_from: str
) -> dict[str, str]:
    """Find an intact artifact of each needed node.

    Args:
        needed: Nodes, in the order of the DAG.
        slices: Node name to its slice.
        context: Names the store.
        start_from: Empty: the newest artifacts in the store that this recipe's own numbers made. The name or id of
            a finished run on this cluster, or a folder that `qwenops run` wrote: what that run made.

    Returns:
        Node name to the place of its artifact, a folder or an address, for every node of `needed`.

    Raises:
        ContractError: one is missing or broken; names the node and where it was looked for.
    """
    found: dict[str, str] = {}
    for node in reversed(needed):
        lineage = _parent_of_found(node, found)
        if lineage:
            candidates, where = [lineage], f"the artifact that a later one was made from, {lineage}"
        elif start_from:
            record = _record(addresses.runs_folder(context), start_from)
            candidates, where = _recorded(record, node), f"what {record} lists"
        else:
            place = f"{context.store}/{node}"
            candidates, where = _made_by(slices[node], place), f"artifacts of this recipe in {place}"
        found[node] = _newest_intact(node, candidates, where, context)
    return found


def import_artifacts(earlier: str, outputs: Mapping[str, Any]) -> None:
    """Let KFP artifacts stand for the artifacts that `find_artifacts` found.

    Args:
        earlier: JSON text: under "places" node name to folder or address.
        outputs: Node name to the KFP artifact of this step.
    """
    context, places = RunContext.from_environment(), json.loads(earlier)["places"]
    called = [pipeline.name for pipeline in PIPELINES.values() if set(pipeline.earlier) == set(outputs)]
    with recorded(f"earlier-for-{''.join(called)}".replace("_", "-")):
        for node, output in outputs.items():
            path = artifacts.local_copy(places[node], context)
            kfp_artifacts.fill(path, read_manifest(path), context, address=places[node], output=output)


def _parent_of_found(node: str, found: Mapping[str, str]) -> str | None:
    for later, place in found.items():
        inputs = next(item for item in NODES if item.name == later).inputs
        manifest = artifacts.manifest(place)
        for name, source in inputs.items():
            if manifest and source == node and name in manifest.inputs:
                return manifest.inputs[name]
    return None


def _record(finished: Path, start_from: str) -> Path:
    """The run record that `start_from` names: a run's folder, its id, or the newest run of that name."""
    named = [Path(start_from) / "run.json", finished / start_from / "run.json"]
    for path in named:
        if path.is_file():
            return path
    runs = [path for path in finished.glob("*/run.json") if _read(path)["run_name"] == start_from]
    if not runs:
        raise ContractError(
            "there is no run to start from",
            expected=f"the name or id of a run in {finished}, or a folder with a run.json",
            found=start_from,
            action="correct start_from, or leave it empty to take the newest artifacts of this recipe",
        )
    return max(runs, key=lambda path: _read(path)["started_at"])


def _read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))


def _recorded(record: Path, node: str) -> list[str]:
    outputs = _read(record)["stages"].get(node, {}).get("outputs", {})
    return [outputs["output"]["path"]] if outputs else []


def _made_by(envelope: Slice[Config], place: str) -> list[str]:
    config = envelope.config.model_dump(mode="json")
    made = {found: artifacts.manifest(found) for found in artifacts.list_artifacts(place)}
    return [found for found, manifest in made.items() if manifest and manifest.config == config]


def _newest_intact(node: str, candidates: Iterable[str], where: str, context: RunContext) -> str:
    manifests = {place: manifest for place in candidates if (manifest := artifacts.manifest(place))}
    for place in sorted(manifests, key=lambda place: manifests[place].created_at, reverse=True):
        if artifacts.is_complete(place, context):
            return place
    raise ContractError(
        f"no artifact of {node} to start from",
        expected=f"an intact one among {where}",
        found=f"{len(manifests)} that are broken" if manifests else "none",
        action=f"run a pipeline that makes {node} first, or name another run in start_from",
    )
