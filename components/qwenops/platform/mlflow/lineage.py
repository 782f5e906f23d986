"""What a stage read and made, as MLflow shows it: data by digest, kept checkpoints as models that point at a folder.

Weights never travel through the server (mlflow#6994).
"""

import json
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import (
    Dataset,
    DatasetInput,
    InputTag,
    LoggedModelInput,
    LoggedModelOutput,
    LoggedModelStatus,
    Metric,
)

from qwenops.contracts.manifest import Manifest, read_manifest
from qwenops.platform.context import RunContext
from qwenops.platform.mlflow.runs import PARAMS_PER_BATCH, clean, flatten, log
from qwenops.platform.secrets import redact_all
from qwenops.platform.storage import addresses

# MLflow's own tag, by which its UI says what a data set was for.
_CONTEXT = "mlflow.data.context"
_DIGEST_LENGTH = 36


def log_lineage(
    client: MlflowClient, context: RunContext, experiment_id: str, run_id: str, manifest: Manifest, path: Path
) -> None:
    """Log what the stage of `manifest` read and made into its run."""
    parents = manifest.inputs
    datasets = [
        dataset(read_manifest(addresses.local_path(place, context)), place, name) for name, place in parents.items()
    ]
    used = [
        model.model_id
        for name in parents
        for model in client.search_logged_models(
            [experiment_id], filter_string=f"tags.artifact_id = '{manifest.parents[name]}'", max_results=1
        )
    ]
    if datasets or used:
        client.log_inputs(run_id, datasets, [LoggedModelInput(model_id) for model_id in dict.fromkeys(used)])
    root = addresses.files_address(path, manifest.artifact_id, context)
    made = [
        _logged_model(client, experiment_id, run_id, manifest, folder, _below(root, folder.relative_to(path)))
        for folder in kept_checkpoints(path)
    ]
    if made:
        client.log_outputs(run_id, [LoggedModelOutput(model_id, 0) for model_id in made])
    elif len(used) == 1:
        # An evaluation of one model: its figures also stand at the model they are about.
        log(client, run_id, metrics=list(stage_metrics(manifest, used[0])))


def dataset(manifest: Manifest, place: str, role: str) -> DatasetInput:
    """A published artifact as data that a run reads.

    Args:
        manifest: The artifact's.
        place: The folder or address it lies at.
        role: What it is read as.
    """
    data = Dataset(
        name=manifest.node,
        digest=manifest.digest[:_DIGEST_LENGTH],
        source_type="s3" if addresses.is_remote(place) else "local",
        source=json.dumps({"uri": place}),
        profile=json.dumps({"records": manifest.records}),
    )
    return DatasetInput(data, [InputTag(_CONTEXT, role)])


def kept_checkpoints(path: Path) -> list[Path]:
    """Folders at or below `path` that hold a transformers model: a `config.json` beside safetensors."""
    return [file.parent for file in sorted(path.rglob("config.json")) if any(file.parent.glob("*.safetensors"))]


def stage_metrics(manifest: Manifest, model_id: str | None = None) -> Iterator[Metric]:
    """The figures of a stage, its time and its records among them, as of when it was made."""
    when = made_at(manifest)
    for name, value in {**manifest.metrics, "seconds": manifest.seconds, "records": manifest.records}.items():
        yield Metric(clean(name), float(value), when, 0, model_id=model_id)


def made_at(manifest: Manifest) -> int:
    """Milliseconds since the epoch."""
    return int(datetime.fromisoformat(manifest.created_at).timestamp() * 1000)


def _below(root: str, relative: Path) -> str:
    return root if relative == Path() else f"{root}/{relative.as_posix()}"


def _logged_model(
    client: MlflowClient, experiment_id: str, run_id: str, manifest: Manifest, folder: Path, address: str
) -> str:
    tags = {
        "mlflow.model.isExternal": "true",
        "path": address,
        "digest": manifest.digest,
        "artifact_id": manifest.artifact_id,
        "fingerprint": manifest.fingerprint,
    }
    name = manifest.node if (folder / "checkpoint.json").exists() else f"{manifest.node}-{folder.name}"
    settings: Mapping[str, str] = dict(list(redact_all(flatten(manifest.config)).items())[:PARAMS_PER_BATCH])
    model = client.create_logged_model(
        experiment_id, name=name, source_run_id=run_id, tags=tags, params=dict(settings), model_type="checkpoint"
    )
    client.finalize_logged_model(model.model_id, LoggedModelStatus.READY)
    log(client, run_id, metrics=list(stage_metrics(manifest, model.model_id)))
    return model.model_id
