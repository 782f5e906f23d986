"""No secret is in a tracked file or in a compiled pipeline: names of secrets are, values never."""

import subprocess
from pathlib import Path

import pytest
from detect_secrets.core.scan import scan_file
from detect_secrets.settings import transient_settings
from tests.architecture.places import ROOT

from qwenops.recipe.placement import Placement
from qwenops_pipelines.compile import compile_pipeline
from qwenops_pipelines.recipes import load_recipe

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


def _found_in_lines_of(names: list[str], path: Path) -> list[str]:
    """As `_found` of each, at the cost of their distinct lines, which go to `path`: no detector looks beyond a line."""
    places: dict[str, str] = {}
    for name in names:
        for number, line in enumerate(Path(name).read_text(encoding="utf-8").splitlines(), start=1):
            places.setdefault(line, f"{name}:{number}")
    path.write_text("\n".join(places), encoding="utf-8")
    known = list(places.values())
    return [f"{known[secret.line_number - 1]} {secret.type}" for secret in scan_file(str(path))]


def test_tracked_files_hold_no_secret(monkeypatch, tmp_path):
    monkeypatch.chdir(ROOT)
    names = _tracked()
    assert len(names) > 100
    # A thousand lines stand in compiled pipelines, fifty times each.
    compiled = [name for name in names if Path(name).is_relative_to("pipelines/compiled") and name.endswith(".yaml")]
    with transient_settings(_SETTINGS):
        assert _found_in_lines_of(compiled, tmp_path / "compiled.properties") == []
        assert [line for name in names if name not in set(compiled) for line in _found(name)] == []


def test_scan_of_distinct_lines_finds_a_planted_secret_where_it_stands_first(tmp_path):
    names = [str(tmp_path / name) for name in ("a.yaml", "b.yaml")]
    for name in names:
        Path(name).write_text("recipe: |\n  a: 1\n  password: correct-horse-battery\n")  # pragma: allowlist secret
    with transient_settings(_SETTINGS):
        found = _found_in_lines_of(names, tmp_path / "lines.properties")
    assert found == [f"{names[0]}:3 Secret Keyword"]


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
