"""The versions of our pipelines on a Kubeflow back end: what a compiled file is called there, and its upload.

A version is named `<recipe>@<commit or code version>` and uploaded once. What another client made first is used: the
server answers 409 then, and only then is it known to be there; its lists show it a moment later, when it is ready.
"""

import hashlib
import json
import re
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import kfp_server_api
import yaml

import qwenops
from qwenops.errors import PlatformError, RecipeError

EXPERIMENT = "qwenops"
_CONFLICT = 409
_READY_PAUSES = (0.0, 0.2, 0.5, 1.0, 2.0)
"""Seconds before each look at what another client is making; house choice: an upload takes well below a second."""
_LONGEST = 120
"""Characters of a version's name before a digest of seven; Kubeflow 2.17 takes 127 (`validation/length.go`)."""
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
    """A compiled pipeline.

    Attributes:
        path: Its file.
        digest: SHA-256 of its text.
        name: Of the pipeline.
        version: Name of the version that it becomes.
        form: The form's parameters with their defaults.
        steps: Its tasks that run something, as Kubeflow spells them.
    """

    path: Path
    digest: str
    name: str
    version: str
    form: Mapping[str, Any] = field(default_factory=dict[str, Any])
    steps: frozenset[str] = frozenset()


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
        steps = frozenset(_steps(spec["root"], spec["components"]))
    except (OSError, yaml.YAMLError, KeyError, TypeError, ValueError, StopIteration) as error:
        raise RecipeError(
            f"{path} is no compiled pipeline",
            expected="a file that `qwenops compile` wrote",
            found=f"{type(error).__name__}: {error}",
            action="compile it again",
        ) from None
    digest = hashlib.sha256(text.encode()).hexdigest()
    version = _NOT_IN_NAMES.sub("-", f"{recipe}@{commit or f'{qwenops.__version__}-{digest[:10]}'}")
    return Package(path, digest, name, version[:_LONGEST], form, steps)


def upload(client: Any, target: Target, package: Package) -> tuple[str, str]:
    """Return the ids of the pipeline and of the package's version, uploading what is not there."""
    namespace = {"namespace": target.namespace} if target.namespace else {}
    pipeline_id = find_pipeline_id(client, target, package.name) or get_or_create(
        lambda: client.upload_pipeline(str(package.path), package.name, **namespace).pipeline_id,
        lambda: find_pipeline_id(client, target, package.name),
    )
    # The same commit may be compiled for another placement: the second file of a name gets its digest behind it.
    # So does one whose first upload never became ready.
    for name in (package.version, f"{package.version}.{package.digest[:6]}"):
        there = _version(client, pipeline_id, name) or _upload_version(client, pipeline_id, package, name)
        if there is not None and there.description == package.digest:
            return pipeline_id, there.pipeline_version_id
    raise PlatformError(
        f"the version {package.version} holds another pipeline",
        expected="a version that was uploaded from this file",
        found="two other files, or uploads that never became ready, under its names",
        action="delete them in the UI, or give another --commit",
    )


def _upload_version(client: Any, pipeline_id: str, package: Package, name: str) -> Any:
    """The version that is uploaded, or that another client did; None where its name is taken and it is never ready."""
    try:
        return get_or_create(
            lambda: client.upload_pipeline_version(
                str(package.path), name, pipeline_id=pipeline_id, description=package.digest
            ),
            lambda: _version(client, pipeline_id, name),
        )
    except kfp_server_api.ApiException as error:
        if error.status != _CONFLICT:
            raise
        return None


def find_pipeline_id(client: Any, target: Target, name: str) -> str | None:
    """Return the id of the namespace's pipeline `name`; None when there is none.

    The client's own look-up names no namespace: where there are many users it sees the shared pipelines alone.
    """
    found = client.list_pipelines(filter=called(name), namespace=target.namespace or None).pipelines
    return found[0].pipeline_id if found else None


def _version(client: Any, pipeline_id: str, name: str) -> Any:
    """The pipeline's version `name`, or None."""
    found = client.list_pipeline_versions(pipeline_id, filter=called(name)).pipeline_versions
    return found[0] if found else None


def get_or_create(make: Callable[[], Any], find: Callable[[], Any]) -> Any:
    """What `make` creates, or what `find` finds where the server says that somebody else has."""
    try:
        return make()
    except kfp_server_api.ApiException as error:
        if error.status != _CONFLICT:
            raise
        for pause in _READY_PAUSES:
            time.sleep(pause)
            if (found := find()) is not None:
                return found
        raise


def called(name: str) -> str:
    """A filter of lists for what has the name `name`; what a version is shown as can be changed in the UI."""
    return json.dumps({"predicates": [{"operation": "EQUALS", "key": "name", "stringValue": unquoted_twice(name)}]})


def unquoted_twice(text: str) -> str:
    """`text` as a filter must hold it: the server unquotes a filter once more than HTTP does."""
    return text.replace("%", "%25").replace("+", "%2B")


def _steps(component: Mapping[str, Any], components: Mapping[str, Any]) -> Iterator[str]:
    """Names of the tasks below a component that have an executor of their own."""
    for task, facts in component["dag"]["tasks"].items():
        inner = components[facts["componentRef"]["name"]]
        if "dag" in inner:
            yield from _steps(inner, components)
        else:
            yield task
