"""Artifacts and the environment of a run, for the pre-training stages."""

import pytest
from tests.pretraining.corpus import PRETRAIN, make_artifacts

from qwenops.platform.launch.execute import execute
from qwenops.recipe.codec import canonical


@pytest.fixture(scope="session")
def artifacts(tmp_path_factory):
    return make_artifacts(tmp_path_factory.mktemp("artifacts"))


@pytest.fixture
def run_stage(tmp_path, monkeypatch):
    """Run a pre-training stage by name under a fresh store, on one thread."""
    return _runner(tmp_path, monkeypatch)


@pytest.fixture(scope="session")
def pretrained(artifacts, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        return _runner(tmp_path_factory.mktemp("pretrained"), patch)("pretrain", PRETRAIN, artifacts)


@pytest.fixture(scope="module")
def run_stage_of_module(tmp_path_factory):
    """`run_stage` for what the tests of a module share."""
    with pytest.MonkeyPatch.context() as patch:
        yield _runner(tmp_path_factory.mktemp("shared"), patch)


def _runner(root, patch):
    # Threads change the order of sums; one processor leaves nothing to choose.
    patch.setattr("os.sched_getaffinity", lambda _: {0})

    def run(node, config, inputs, store="store"):
        for name in ("store", "events", "cache"):
            patch.setenv(f"QWENOPS_{name.upper()}", str(root / (store if name == "store" else name)))
        text = canonical({"node": node, "seed": 7, "config": config.model_dump(mode="json")})
        return execute(f"pretraining.{node}", text, inputs)

    return run
