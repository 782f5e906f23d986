"""No secret is in a tracked file or in a compiled pipeline: names of secrets are, values never."""

import subprocess

import pytest
from detect_secrets.core.scan import scan_file
from detect_secrets.settings import transient_settings
from tests.architecture.places import ROOT

from qwenops.recipe.placement import Placement
from qwenops_pipelines.compile import compile_pipeline
from qwenops_pipelines.recipes import load_recipe

# Thirteen detectors look at every line of every file.
pytestmark = pytest.mark.timeout(300)
# Entropy finds digests, of which pins are made; a file whose secrets are invented says so in the line
# (`pragma: allowlist secret`).
_DETECTORS = (
    "AWSKeyDetector", "AzureStorageKeyDetector", "BasicAuthDetector", "GitHubTokenDetector", "GitLabTokenDetector",
    "JwtTokenDetector", "KeywordDetector", "NpmDetector", "OpenAIDetector", "PrivateKeyDetector", "PypiTokenDetector",
    "SlackDetector", "StripeDetector",
)  # fmt: skip
# The name of a Kubernetes secret, and a URL whose password is a place to fill in, are no secrets.
_NAMES = [r"(existing|artifact)_?Secret\b", r"://USER:PASSWORD@|:%s@"]
_FILTERS = (
    "allowlist.is_line_allowlisted",
    "heuristic.is_indirect_reference",
    "heuristic.is_templated_secret",
    "heuristic.is_not_alphanumeric_string",
    "heuristic.is_prefixed_with_dollar_sign",
)
_SETTINGS = {
    "plugins_used": [{"name": name} for name in _DETECTORS],
    "filters_used": [
        {"path": "detect_secrets.filters.regex.should_exclude_line", "pattern": _NAMES},
        *({"path": f"detect_secrets.filters.{name}"} for name in _FILTERS),
    ],
}
_NOT_TEXT = {".png", ".gz", ".pdf", ".ico"}


def _tracked() -> list[str]:
    done = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip("not a git checkout")
    return [name for name in done.stdout.splitlines() if (ROOT / name).suffix not in _NOT_TEXT]


def _found(path: str) -> list[str]:
    return [f"{path}:{secret.line_number} {secret.type}" for secret in scan_file(path)]


def test_tracked_files_hold_no_secret(monkeypatch):
    monkeypatch.chdir(ROOT)
    names = _tracked()
    assert len(names) > 100
    with transient_settings(_SETTINGS):
        assert [line for name in names for line in _found(name)] == []


@pytest.mark.parametrize(
    "text",
    [
        "aws_access_key_id = AKIAIOSFODNN7EXAMQLE",  # pragma: allowlist secret
        "password: correct-horse-battery",  # pragma: allowlist secret
        "-----BEGIN RSA PRIVATE KEY-----",  # pragma: allowlist secret
    ],
)
def test_scan_finds_a_planted_secret(tmp_path, text):
    (tmp_path / "values.yaml").write_text(f"# settings\n{text}\n")
    with transient_settings(_SETTINGS):
        assert _found(str(tmp_path / "values.yaml")) != []


def test_compiled_pipeline_names_a_secret_and_does_not_hold_it(tmp_path, monkeypatch):
    monkeypatch.setenv("JUDGE_API_KEY", "planted-judge-key")  # pragma: allowlist secret
    names = {"JUDGE_API_KEY": "judge/key"}  # pragma: allowlist secret
    placement = Placement(name="p", image="i", artifact_root="/mnt/a", cache_root="/mnt/c", secret_env=names)
    compile_pipeline(load_recipe("smoke", []), placement, tmp_path / "p.yaml")
    text = (tmp_path / "p.yaml").read_text()
    assert "planted-judge-key" not in text  # pragma: allowlist secret
    assert "JUDGE_API_KEY" in text
    assert "judge" in text
