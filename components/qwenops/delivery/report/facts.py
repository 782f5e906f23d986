"""What the report page is drawn from: the run record, and the artifacts' manifests, curves and JSON files.

Everything may be missing, because a page is also written for a run that stopped in the middle: an absent figure is
None and an absent file is an empty value, and the sections leave out what they cannot show.
"""

import json
import os
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from qwenops.contracts.manifest import Manifest, read_manifest
from qwenops.platform.stage.curves import CURVES

Points = list[tuple[float, float]]


@dataclass(frozen=True)
class RunFacts:
    """One run, for drawing.

    Attributes:
        record: The run record (`run.json`); stages that failed or were not reached have no artifact.
        artifacts: Node name to its published folder.
        base: Folder the page will lie in; links are relative to it.
    """

    record: Mapping[str, Any]
    artifacts: Mapping[str, Path]
    base: Path

    @cached_property
    def manifests(self) -> dict[str, Manifest]:
        """Node name to manifest."""
        return {node: read_manifest(path) for node, path in self.artifacts.items()}

    @property
    def stages(self) -> Mapping[str, Mapping[str, Any]]:
        """The record's stages."""
        return self.record.get("stages", {})

    def metrics(self, node: str) -> Mapping[str, float]:
        """All figures of a node; empty when it has none."""
        if node in self.manifests:
            return self.manifests[node].metrics
        return self.stages.get(node, {}).get("metrics", {})

    def figure(self, node: str, name: str) -> float | None:
        """One figure of a node."""
        return self.metrics(node).get(name)

    def group(self, node: str, prefix: str) -> dict[str, float]:
        """Figures `<prefix>.<rest>` of a node by `<rest>`."""
        start = prefix + "."
        return {name[len(start) :]: value for name, value in self.metrics(node).items() if name.startswith(start)}

    def curves(self, node: str) -> dict[str, Points]:
        """Curve name to its points; empty without `curves.jsonl`."""
        found: defaultdict[str, list[tuple[float, float]]] = defaultdict(list)
        path = self.artifacts.get(node, Path()) / CURVES
        if node in self.artifacts and path.is_file():
            with path.open(encoding="utf-8") as stream:
                for line in stream:
                    point = json.loads(line)
                    found[point["name"]].append((point["step"], point["value"]))
        return dict(found)

    def json(self, node: str, name: str) -> Any:
        """A JSON file of a node's artifact, or None."""
        path = self.artifacts.get(node, Path()) / name
        return json.loads(path.read_text(encoding="utf-8")) if node in self.artifacts and path.is_file() else None

    def files(self, node: str, pattern: str) -> list[Path]:
        """Files of a node's artifact that fit a glob."""
        return sorted(self.artifacts[node].glob(pattern)) if node in self.artifacts else []

    def link(self, path: Path) -> str:
        """Relative address of `path`, so that a copied run folder keeps working links."""
        return os.path.relpath(path, self.base).replace(os.sep, "/")

    @property
    def edges(self) -> list[tuple[str, str]]:
        """(producer, consumer), from the manifests: an artifact lies in `<store>/<node>/<fingerprint>`."""
        pairs = {(Path(place).parent.name, node) for node, m in self.manifests.items() for place in m.inputs.values()}
        return sorted(pairs)


def record_from(artifacts: Mapping[str, Path], run_name: str) -> dict[str, Any]:
    """A run record made from manifests alone, for a page that is drawn while its run is not over."""
    stages: dict[str, Any] = {}
    for node, path in artifacts.items():
        m = read_manifest(path)
        stages[node] = {
            "status": "succeeded",
            "seconds": m.seconds,
            "fingerprint": m.fingerprint,
            "metrics": dict(m.metrics),
            "warnings": list(m.warnings),
        }
    stages["report"] = {"status": "running", "seconds": 0.0, "metrics": {}, "warnings": []}
    versions = sorted({read_manifest(path).code_version.split("+")[0] for path in artifacts.values()})
    return {
        "run_name": run_name,
        "code_version": ", ".join(versions),
        "status": "succeeded",
        "seconds": sum(stage["seconds"] for stage in stages.values()),
        "stages": stages,
        "model": _model(artifacts),
    }


def _model(artifacts: Mapping[str, Path]) -> dict[str, Any]:
    path = artifacts.get("register", Path()) / "register.json"
    if "register" not in artifacts or not path.is_file():
        return {}
    found = json.loads(path.read_text(encoding="utf-8"))
    return {
        "path": str(artifacts.get("export", "")),
        "mlflow_uri": found["mlflow_uri"],
        "alias": found["alias"],
        "gate": {"passed": found["passed"], "reasons": found["reasons"]},
    }
