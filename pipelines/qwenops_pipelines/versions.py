"""The versions of our pipelines on a Kubeflow back end: what a compiled file is called there, and its upload.

A version is named `<recipe>@<commit or code version>` and uploaded once. What another client made first is used: the
server answers 409 then, and only then is it known to be there.
"""

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import kfp_server_api
import yaml

import qwenops
from qwenops.errors import PlatformError, RecipeError

EXPERIMENT = "qwenops"
_CONFLICT = 409
# Others need quoting somewhere: the server unquotes a filter once more than HTTP does.
_NOT_IN_NAMES = re.compile(r"[^\w.@-]+", re.ASCII)


@dataclass(frozen=True)
class Target:
    """Where to: address, namespace, experiment, account of the steps; empty takes the default of each."""

    host: str = ""
    namespace: str = ""
    experiment: str = EXPERIMENT
    service_account: str = ""


@dataclass(frozen=True)
class Package:
    """A compiled pipeline: its file, SHA-256, name, version name and the form's parameters with their defaults."""

    path: Path
    digest: str
    name: str
    version: str
    form: Mapping[str, Any] = field(default_factory=dict[str, Any])


def read_package(path: Path, commit: str = "") -> Package:
    """Read what a compiled file says about itself.

    Args:
        path: YAML that `qwenops compile` wrote.
        commit: Commit that the version is named by; empty names it by the code version and the file's digest.

    Raises:
        RecipeError: the file is no compiled pipeline.
    """
    try:
        text = path.read_text(encoding="utf-8")
        spec = next(iter(yaml.load_all(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader))))
        name = spec["pipelineInfo"]["name"]
        fields = spec["root"]["inputDefinitions"]["parameters"]
        form = {key: facts.get("defaultValue", "") for key, facts in fields.items()}
        recipe = json.loads(form["recipe_text"])["name"]
    except (OSError, yaml.YAMLError, KeyError, TypeError, ValueError, StopIteration) as error:
        raise RecipeError(
            f"{path} is no compiled pipeline",
            expected="a file that `qwenops compile` wrote",
            found=f"{type(error).__name__}: {error}",
            action="compile it again",
        ) from None
    digest = hashlib.sha256(text.encode()).hexdigest()
    version = _NOT_IN_NAMES.sub("-", f"{recipe}@{commit or f'{qwenops.__version__}-{digest[:10]}'}")
    return Package(path, digest, name, version, form)


def upload(client: Any, target: Target, package: Package) -> tuple[str, str]:
    """Return the ids of the pipeline and of the package's version, uploading what is not there."""
    namespace = {"namespace": target.namespace} if target.namespace else {}
    pipeline_id = find_pipeline_id(client, target, package.name) or get_or_create(
        lambda: client.upload_pipeline(str(package.path), package.name, **namespace).pipeline_id,
        lambda: find_pipeline_id(client, target, package.name),
    )
    # The same commit may be compiled for another placement: the second file of a name gets its digest behind it.
    for name in (package.version, f"{package.version}.{package.digest[:6]}"):
        there = _version(client, pipeline_id, name) or get_or_create(
            lambda name=name: client.upload_pipeline_version(
                str(package.path), name, pipeline_id=pipeline_id, description=package.digest
            ),
            lambda name=name: _version(client, pipeline_id, name),
        )
        if there.description == package.digest:
            return pipeline_id, there.pipeline_version_id
    raise PlatformError(
        f"the version {package.version} holds another pipeline",
        expected="a version that was uploaded from this file",
        found="two other files under its names",
        action="delete them in the UI, or give another --commit",
    )


def find_pipeline_id(client: Any, target: Target, name: str) -> str | None:
    """Return the id of the namespace's pipeline `name`; None when there is none.

    The client's own look-up names no namespace: where there are many users it sees the shared pipelines alone.
    """
    found = client.list_pipelines(filter=_called(name), namespace=target.namespace or None).pipelines
    return found[0].pipeline_id if found else None


def _version(client: Any, pipeline_id: str, name: str) -> Any:
    """The pipeline's version `name`, or None."""
    found = client.list_pipeline_versions(pipeline_id, filter=_called(name)).pipeline_versions
    return found[0] if found else None


def get_or_create(make: Callable[[], Any], find: Callable[[], Any]) -> Any:
    """What `make` creates, or what `find` finds where the server says that somebody else has."""
    try:
        return make()
    except kfp_server_api.ApiException as error:
        found = find() if error.status == _CONFLICT else None
        if found is None:
            raise
        return found


def _called(name: str) -> str:
    """A filter of lists for what has the unique name `name`; what is shown for it can be changed in the UI."""
    return json.dumps({"predicates": [{"operation": "EQUALS", "key": "name", "stringValue": name}]})
