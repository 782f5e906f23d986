"""Render the chart with the real helm, and read what comes out."""

import functools
import json
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
CHART = ROOT / "helm" / "qwenops"
VALUES = {path.name.removesuffix("-values.yaml"): path for path in sorted((CHART / "ci").glob("*-values.yaml"))}
VALUES["default"] = CHART / "values.yaml"

Object = dict[str, Any]


@dataclass(frozen=True)
class Chart:
    """The chart and the helm that renders it."""

    helm: str

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run helm and return its exit status and output."""
        return subprocess.run([self.helm, *arguments], check=False, capture_output=True, text=True)

    def render(self, values: str = "default", namespace: str = "research", **changes: Any) -> list[Object]:
        """Objects of one values file with changed values; a dotted path is written with double underscores."""
        return list(self._rendered(values, namespace, json.dumps(changes)))

    def refusal(self, **changes: Any) -> str:
        """What helm says when it refuses values."""
        done = self.run(*self._command("default", "research", changes))
        assert done.returncode != 0, "helm accepted the values"
        return done.stderr

    @functools.cache  # noqa: B019 - one chart lives as long as the tests do.
    def _rendered(self, values: str, namespace: str, changes: str) -> tuple[Object, ...]:
        done = self.run(*self._command(values, namespace, json.loads(changes)))
        assert done.returncode == 0, done.stderr
        return tuple(item for item in yaml.load_all(done.stdout, yaml.CSafeLoader) if item)

    def _command(self, values: str, namespace: str, changes: dict[str, Any]) -> list[str]:
        sets = [f"--set-json={path.replace('__', '.')}={json.dumps(value)}" for path, value in changes.items()]
        return ["template", "qwenops", str(CHART), "--namespace", namespace, "--values", str(VALUES[values]), *sets]


def of_kind(objects: list[Object], *kinds: str) -> list[Object]:
    """Objects of these kinds."""
    return [item for item in objects if item["kind"] in kinds]


def names(objects: list[Object]) -> set[str]:
    """`Kind/name` of each object."""
    return {f"{item['kind']}/{item['metadata']['name']}" for item in objects}


def pod_specs(objects: list[Object]) -> Iterator[tuple[str, Object, Object]]:
    """(object, pod metadata, pod spec) of everything that starts pods."""
    for item in objects:
        template = {
            "Pod": lambda item: item,
            "Deployment": lambda item: item["spec"]["template"],
            "StatefulSet": lambda item: item["spec"]["template"],
            "CronJob": lambda item: item["spec"]["jobTemplate"]["spec"]["template"],
        }.get(item["kind"])
        if template:
            pod, name = template(item), item["metadata"]["name"]
            # The StatefulSet's controller gives each pod a volume for every claim template.
            claims = [claim["metadata"]["name"] for claim in item["spec"].get("volumeClaimTemplates", [])]
            added = [{"name": c, "persistentVolumeClaim": {"claimName": f"{c}-{name}-0"}} for c in claims]
            spec = pod["spec"] | ({"volumes": [*pod["spec"].get("volumes", []), *added]} if added else {})
            yield f"{item['kind']}/{name}", pod["metadata"], spec


def containers(objects: list[Object]) -> Iterator[tuple[str, Object]]:
    """(name, container) of every container, those that run first included."""
    for name, _, spec in pod_specs(objects):
        for container in [*spec.get("initContainers", []), *spec["containers"]]:
            yield f"{name}/{container['name']}", container


def rules(objects: list[Object]) -> Iterator[tuple[str, Object]]:
    """(role, rule) of every role."""
    for role in of_kind(objects, "Role", "ClusterRole"):
        for rule in role["rules"]:
            yield role["metadata"]["name"], rule
