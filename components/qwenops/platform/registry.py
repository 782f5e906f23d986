"""The MLflow model registry: versions by path, aliases moved by whoever calls.

A version's `source` is the folder (or object-store URI) of the exported model; nothing is uploaded, because
large weights sent through the tracking server's proxy fail (mlflow#6994, #7897).
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from mlflow.exceptions import MlflowException

from qwenops.errors import PlatformError
from qwenops.platform.tracking import MlflowClient

CANDIDATE, CHAMPION = "candidate", "champion"
_FIGURES_TAG = "figures"


@dataclass(frozen=True)
class Version:
    """One registered version.

    Attributes:
        number: Version number as the registry shows it.
        figures: The figures it was registered with, for comparison with a later version.
    """

    number: str
    figures: Mapping[str, float]


def champion(tracking_uri: str, model_name: str) -> Version | None:
    """The version that the alias `champion` points at, or None when there is none yet.

    Raises:
        PlatformError: the registry cannot be read.
    """
    client = MlflowClient(tracking_uri)
    try:
        found = client.search_registered_models(filter_string=f"name = '{model_name}'", max_results=1)
        if not found or CHAMPION not in found[0].aliases:
            return None
        version = client.get_model_version_by_alias(model_name, CHAMPION)
    except MlflowException as error:
        raise _unusable(tracking_uri, error) from error
    return Version(str(version.version), json.loads(version.tags.get(_FIGURES_TAG, "{}")))


def register(
    tracking_uri: str,
    model_name: str,
    source: str,
    *,
    run_id: str,
    figures: Mapping[str, float],
    tags: Mapping[str, str],
    description: str,
) -> Version:
    """Add a version that points at `source` and move the alias `candidate` to it.

    Args:
        tracking_uri: MLflow's tracking URI.
        model_name: Registered model; made when missing.
        source: Folder or object-store address of the exported model.
        run_id: The run the version belongs to; empty for none.
        figures: Figures that a later version is compared with; stored as one JSON tag.
        tags: Data digest, code version, fingerprint, gate verdict.
        description: Markdown shown in the registry.

    Raises:
        PlatformError: the registry cannot be written.
    """
    client = MlflowClient(tracking_uri)
    try:
        if not client.search_registered_models(filter_string=f"name = '{model_name}'", max_results=1):
            client.create_registered_model(model_name)
        version = client.create_model_version(
            model_name,
            source=source if "://" in source else Path(source).resolve().as_uri(),
            run_id=run_id or None,
            description=description,
            tags={**tags, _FIGURES_TAG: json.dumps(dict(figures), sort_keys=True)},
            await_creation_for=0,
        )
        client.set_registered_model_alias(model_name, CANDIDATE, version.version)
    except MlflowException as error:
        raise _unusable(tracking_uri, error) from error
    return Version(str(version.version), figures)


def promote(tracking_uri: str, model_name: str, version: Version) -> None:
    """Move the alias `champion` to `version`.

    Raises:
        PlatformError: the registry cannot be written.
    """
    try:
        MlflowClient(tracking_uri).set_registered_model_alias(model_name, CHAMPION, version.number)
    except MlflowException as error:
        raise _unusable(tracking_uri, error) from error


def _unusable(tracking_uri: str, error: MlflowException) -> PlatformError:
    return PlatformError(
        "the model registry cannot be used",
        expected=f"a writable MLflow registry at {tracking_uri}",
        found=error,
        action="correct the tracking URI or its permissions; the exported model itself is complete",
    )
