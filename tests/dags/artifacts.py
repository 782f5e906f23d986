"""Artifacts as the stages of the smoke recipe publish them, made in no time."""

import tempfile
from pathlib import Path

from qwenops.contracts.manifest import Manifest, digest_files, read_manifest, write_manifest
from qwenops.platform.identity.sources import Sources
from qwenops.platform.stage.task import stage_fingerprint
from qwenops.platform.storage.addresses import PUBLISHED_MARK
from qwenops.recipe.codec import canonical
from qwenops.recipe.schema import resolve
from qwenops_pipelines.dags.nodes import NODES
from qwenops_pipelines.recipes import load_recipe

SOURCES = Sources(Path(tempfile.gettempdir()) / "qwenops-tests")
BY_NAME = {node.name: node for node in NODES}
RECIPE = load_recipe("smoke", [])
TEXT = canonical(RECIPE)


def publish(store, name, parents=None, created="2026-01-01T00:00:00+00:00", files=None, address=str):
    """An artifact of node `name` made by the smoke recipe; returns its folder.

    `parents` is node name to folder; `address` gives the place of a folder that the manifest records.
    """
    node, envelope = BY_NAME[name], resolve(RECIPE)[name]
    sources = {key: parents[source] for key, source in node.inputs.items() if parents and source in parents}
    ids = {key: read_manifest(path).artifact_id for key, path in sources.items()}
    causes = SOURCES.causes(node.stage, envelope.config)
    key = stage_fingerprint(causes, envelope, ids)
    folder = store / name / key[:16]
    while folder.exists():
        folder = folder.with_name(folder.name[:-1] + chr(ord(folder.name[-1]) + 1))
    folder.mkdir(parents=True)
    folder.with_name(f".{folder.name}{PUBLISHED_MARK}").touch()
    for file, text in {"data.txt": f"{name} {created}", **(files or {})}.items():
        (folder / file).write_text(text)
    manifest = Manifest(
        node=name,
        fingerprint=key,
        artifact_id=f"{name}-{folder.name}",
        parents=ids,
        files=digest_files(folder),
        records=3,
        counts={"read": 4, "kept": 3, "dropped": {"short": 1}},
        metrics={"planted.recall": 1.0},
        warnings=("small",),
        seconds=2.0,
        config=envelope.config.model_dump(mode="json"),
        code_version="1",
        created_at=created,
        inputs={key: address(path) for key, path in sources.items()},
        causes=causes,
    )
    write_manifest(folder, manifest)
    return folder
