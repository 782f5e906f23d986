"""Secret values are found by the names of their variables and are nowhere in what a run writes."""

import json

import pytest

from qwenops.errors import PlatformError
from qwenops.platform.secrets import read_secret, redact, redact_all, secret_values


@pytest.mark.parametrize(
    "name", ["HF_TOKEN", "AWS_SECRET_ACCESS_KEY", "OPENAI_API_KEY", "MLFLOW_TRACKING_PASSWORD", "TOKEN"]
)
def test_variable_whose_name_says_secret_is_one(name):
    assert secret_values({name: "0123456789"}) == {name: "0123456789"}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("TOKENIZERS_PARALLELISM", "false-and-long"),
        ("HF_TOKEN", "short"),
        ("AWS_WEB_IDENTITY_TOKEN_FILE", "/var/run/secrets/token"),
        ("HOME", "/home/somebody"),
    ],
)
def test_ordinary_variable_is_none(name, value):
    assert secret_values({name: value}) == {}


def test_variable_the_context_names_is_one(monkeypatch):
    monkeypatch.setenv("QWENOPS_SECRETS", "LICENCE,OTHER")
    monkeypatch.setenv("LICENCE", "aaaa-bbbb-cccc")
    assert redact("with aaaa-bbbb-cccc inside") == "with *** inside"


def test_secret_that_was_read_is_masked_afterwards(monkeypatch):
    monkeypatch.setenv("QWENOPS_SECRETS", "")
    monkeypatch.setenv("JUDGE", "judge-me-not")
    assert redact("judge-me-not") == "judge-me-not"
    assert read_secret("JUDGE") == "judge-me-not"
    assert redact("judge-me-not") == "***"


def test_missing_secret_is_refused_by_name():
    with pytest.raises(PlatformError, match="NO_SUCH_VARIABLE_HERE"):
        read_secret("NO_SUCH_VARIABLE_HERE")


def test_longer_secret_is_masked_whole_and_url_passwords_too(monkeypatch):
    monkeypatch.setenv("A_TOKEN", "abcdefgh")
    monkeypatch.setenv("B_TOKEN", "abcdefgh-ijkl")
    assert redact("x abcdefgh-ijkl y") == "x *** y"
    # pragma: allowlist nextline secret
    assert redact("postgresql://mlflow:pw@db/mlflow") == "postgresql://mlflow:***@db/mlflow"


def test_plain_data_is_masked_at_any_depth(monkeypatch):
    monkeypatch.setenv("A_TOKEN", "abcdefgh")
    plain = {"a": ["x abcdefgh", {"abcdefgh": 1}], "n": 2.5, "none": None}
    assert "abcdefgh" not in json.dumps(redact_all(plain))
    assert redact_all(plain)["n"] == 2.5
