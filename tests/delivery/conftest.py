"""An empty MLflow database and an exported model, made once."""

import shutil

import pytest
from tests.delivery.artifacts import make_checkpoint, make_tokenizer, publish
from tests.delivery.fabricated import figures
from tests.delivery.registered import NAME

from qwenops.platform.mlflow import registry
from qwenops.platform.mlflow.model import write_mlflow_model


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory):
    """MLflow's schema, which takes a while to make."""
    file = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    registry.champion(f"sqlite:///{file}", NAME)
    return file


@pytest.fixture
def uri(empty_database, tmp_path):
    return f"sqlite:///{shutil.copy(empty_database, tmp_path / 'mlflow.db')}"


@pytest.fixture(scope="session")
def model(tmp_path_factory):
    """An exported chat model of a healthy run."""
    root = tmp_path_factory.mktemp("model")
    tokenizer = make_tokenizer(root / "tokenizer")
    folder = make_checkpoint(root / "export", tokenizer)
    write_mlflow_model(folder, "ab" * 32)
    own = {name.removeprefix("export."): value for name, value in figures().items() if name.startswith("export.")}
    return publish(folder, "export", own)
