"""Weights of the Hub: asked of the user's own endpoint, by revision, with the user's token, or not at all."""

import json
import os
import subprocess
import sys

import pytest
from safetensors.torch import load_file, save_file
from tests.delivery.artifacts import make_tokenizer
from tests.model.hub_mirror import mirror
from tests.model.small import small_model

from qwenops_pipelines.placements.environment import ENVIRONMENT as IN_PODS
from qwenops_pipelines.services import ENVIRONMENT as ON_LAPTOPS

LOAD = """
import json, sys
from pathlib import Path
from qwenops.errors import QwenOpsError
from qwenops.model.warm_start import load_initial_model, load_initial_tokenizer
from qwenops.platform.identity.outside import digest_outside
from qwenops.recipe.outside import Outside
source, cache = sys.argv[1:]
try:
    norm = load_initial_model(source).model.norm.weight[0].item()
except QwenOpsError as error:
    sys.exit(f"{type(error).__name__}: {error}")
print(json.dumps([norm, len(load_initial_tokenizer(source)), digest_outside(Outside("model", source), Path(cache))]))
"""


@pytest.fixture(scope="module")
def revisions(tmp_path_factory):
    """Two revisions of one model, told apart by their last norm."""
    folders = {}
    for number, name in enumerate(("main", "v2"), 1):
        folder = tmp_path_factory.mktemp(name)
        small_model().save_pretrained(folder)
        make_tokenizer(folder)
        tensors = load_file(folder / "model.safetensors")
        tensors["model.norm.weight"].fill_(number)
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
        folders[name] = folder
    return folders


def load(source, cache, **environment):
    # The environment that a run gives its stages, over the user's.
    clean = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    given = {**clean, "HF_HOME": str(cache), **environment, **ON_LAPTOPS}
    command = [sys.executable, "-c", LOAD, source, str(cache)]
    return subprocess.run(command, capture_output=True, text=True, env=given, check=False)


@pytest.mark.parametrize(("suffix", "norm"), [("@v2", 2.0)])
def test_weights_come_from_the_users_endpoint_at_the_revision_named(tmp_path, revisions, suffix, norm):
    with mirror("owner/name", revisions) as hub:
        commit = hub.commit("v2" if norm == 2.0 else "main")
        done = load(
            f"owner/name{suffix.replace('COMMIT', commit)}",
            tmp_path,
            HF_ENDPOINT=hub.address,
            HF_TOKEN="hf_of_the_user",
        )
        assert done.returncode == 0, done.stderr[-2000:]
        found, tokens, identity = json.loads(done.stdout.splitlines()[-1])
    assert (found, identity) == (norm, commit)
    assert tokens > 0
    assert any("model.safetensors" in path for path in hub.asked)
    assert "Bearer hf_of_the_user" in hub.tokens


def test_no_variable_of_the_hub_is_set_over_the_users():
    assert not [name for given in (ON_LAPTOPS, IN_PODS) for name in given if name.startswith("HF_")]
