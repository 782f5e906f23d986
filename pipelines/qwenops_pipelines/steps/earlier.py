"""Artifacts of an earlier run, for a pipeline that does not start at the raw pages.

The search goes from the last needed node back to the first, and follows what each artifact says it was made from: a
base model is taken up with the very tokenizer it was trained with, and not with the newest one.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from qwenops.contracts.manifest import MANIFEST, Manifest, is_intact, read_manifest
from qwenops.errors import ContractError
from qwenops.platform import kfp_artifacts
from qwenops.platform.context import RunContext
from qwenops_pipelines.dags.edges import NODES

RUNS = "runs"
"""Folder beside the store that holds one folder per finished run on a cluster."""


def find_earlier(needed: Sequence[str], slices: Mapping[str, str], store: Path, start_from: str) -> dict[str, Path]:
    """Find an intact artifact of each needed node.

    Args:
        needed: Nodes, in the order of the DAG.
        slices: Node name to the text of its slice.
        store: Root of the artifacts.
        start_from: Empty: the newest artifacts in the store that this recipe's own numbers made. The name or id of
            a finished run on this cluster, or a folder that `qwenops run` wrote: what that run made.

    Returns:
        Node name to folder, for every node of `needed`.

    Raises:
        ContractError: one is missing or broken; names the node and where it was looked for.
    """
    found: dict[str, Path] = {}
    for node in reversed(needed):
        lineage = _parent_of_found(node, found)
        if lineage:
            candidates, where = [lineage], f"the artifact that a later one was made from, {lineage}"
        elif start_from:
            record = _record(store, start_from)
            candidates, where = _recorded(record, node), f"what {record} lists"
        else:
            candidates, where = _made_by(slices[node], store / node), f"artifacts of this recipe in {store / node}"
        found[node] = _newest_intact(node, candidates, where)
    return found


def take_up(earlier: str, outputs: Mapping[str, Any]) -> None:
    """Let KFP artifacts stand for the artifacts that `find_earlier` found.

    Args:
        earlier: JSON text: node name to folder.
        outputs: Node name to the KFP artifact of this step.
    """
    context, folders = RunContext.from_environment(), json.loads(earlier)
    for node, output in outputs.items():
        path = Path(folders[node])
        kfp_artifacts.fill(path, read_manifest(path), context, output=output)


def _parent_of_found(node: str, found: Mapping[str, Path]) -> Path | None:
    for later, path in found.items():
        inputs = next(item for item in NODES if item.name == later).inputs
        places = read_manifest(path).inputs
        for name, source in inputs.items():
            if source == node and name in places:
                return Path(places[name])
    return None


def _record(store: Path, start_from: str) -> Path:
    """The run record that `start_from` names: a run's folder, its id, or the newest run of that name."""
    named = [Path(start_from) / "run.json", store.parent / RUNS / start_from / "run.json"]
    for path in named:
        if path.is_file():
            return path
    runs = [path for path in (store.parent / RUNS).glob("*/run.json") if _read(path)["run_name"] == start_from]
    if not runs:
        raise ContractError(
            "there is no run to start from",
            expected=f"the name or id of a run in {store.parent / RUNS}, or a folder with a run.json",
            found=start_from,
            action="correct start_from, or leave it empty to take the newest artifacts of this recipe",
        )
    return max(runs, key=lambda path: _read(path)["started_at"])


def _read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))


def _recorded(record: Path, node: str) -> list[Path]:
    outputs = _read(record)["stages"].get(node, {}).get("outputs", {})
    return [Path(outputs["output"]["path"])] if outputs else []


def _made_by(slice_text: str, folder: Path) -> list[Path]:
    config = json.loads(slice_text)["config"]
    return [path.parent for path in folder.glob(f"[!.]*/{MANIFEST}") if read_manifest(path.parent).config == config]


def _newest_intact(node: str, candidates: Iterable[Path], where: str) -> Path:
    there = [path for path in candidates if (path / MANIFEST).is_file()]
    manifests: dict[Path, Manifest] = {path: read_manifest(path) for path in there}
    for path in sorted(there, key=lambda path: manifests[path].created_at, reverse=True):
        if is_intact(path, manifests[path]):
            return path
    raise ContractError(
        f"no artifact of {node} to start from",
        expected=f"an intact one among {where}",
        found=f"{len(there)} that are broken" if there else "none",
        action=f"run a pipeline that makes {node} first, or name another run in start_from",
    )
