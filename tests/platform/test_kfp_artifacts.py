"""What the Kubeflow UI is given to show, from artifacts of a whole fabricated run."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from kfp import dsl
from tests.delivery.fabricated import fabricate

from qwenops.contracts.manifest import read_manifest
from qwenops.contracts.metrics import find_metric
from qwenops.errors import ContractError
from qwenops.platform.context import RunContext
from qwenops.platform.launch.kfp_artifacts import CONFUSION, address_of, fill, headline

KINDS = {"metrics": dsl.Metrics, "summary": dsl.Markdown, "page": dsl.HTML, "classes": dsl.ClassificationMetrics}


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory):
    return fabricate(tmp_path_factory.mktemp("run") / "stages")


def shown(path, folder, *kinds):
    """KFP artifacts of `kinds` and the typed output, filled for the artifact at `path`."""
    given = {"output": dsl.Model(name="output", uri=str(folder / "output"), metadata={})}
    given |= {kind: KINDS[kind](name=kind, uri=str(folder / kind), metadata={}) for kind in kinds}
    context = RunContext(store="s", events="e", cache="c", parent_run_id="parent")
    fill(path, read_manifest(path), context, **given)
    return given


def test_output_says_where_the_artifact_lies_and_what_made_it(artifacts, tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_RUN_ID", raising=False)
    output = shown(artifacts["dedup"], tmp_path)["output"]
    manifest = read_manifest(artifacts["dedup"])
    assert output.uri == str(tmp_path / "output")
    assert address_of(output.path) == output.metadata["address"] == str(artifacts["dedup"])
    assert json.loads(Path(output.path).read_text()) == output.metadata
    wanted = {"digest", "records", "counts", "code_version", "fingerprint", "mlflow_run_id"}
    assert wanted <= set(output.metadata)
    assert output.metadata["mlflow_run_id"] == "parent"
    assert json.loads(output.metadata["counts"]) == dict(manifest.counts)


def test_artifact_is_found_by_folder_address_or_file_and_else_refused(artifacts, tmp_path):
    folder = artifacts["dedup"]
    assert address_of(folder) == str(folder)
    assert address_of("s3://bucket/dedup/01") == "s3://bucket/dedup/01"
    (tmp_path / "other").write_text("a model's weights")
    for place in (tmp_path / "nothing", tmp_path / "other"):
        with pytest.raises(ContractError, match="no artifact at"):
            address_of(place)


def test_figure_that_json_cannot_hold_is_left_out(artifacts, tmp_path):
    manifest = read_manifest(artifacts["dedup"])
    odd = replace(manifest, metrics={"loss.final": float("nan"), "loss.start": 2.0})
    assert set(headline(odd)) == {"loss.start", "seconds", "records"}


def test_every_stage_shows_a_few_listed_figures_and_a_summary(artifacts, tmp_path):
    for name, path in artifacts.items():
        given = shown(path, tmp_path, "metrics", "summary")
        figures = given["metrics"].metadata
        assert 2 <= len(figures) <= 14
        assert all(isinstance(value, float) for value in figures.values())
        assert all(find_metric(figure) for figure in set(figures) - {"seconds", "records"})
        text = Path(given["summary"].path).read_text()
        assert text.startswith(f"# {name}\n")
        assert all(warning in text for warning in read_manifest(path).warnings)


@pytest.mark.parametrize(
    ("node", "words"),
    [
        ("pretrain", ("<svg", "loss")),
        ("long_context", ("<table", "dca", "8x")),
        ("report", ("<!doctype html>",)),
    ],
)
def test_page_is_one_file_with_what_the_stage_drew(artifacts, tmp_path, node, words):
    if node == "report":
        (artifacts["collect"] / "report.html").write_text("<!doctype html><p>whole run</p>")
        node = "collect"
    page = Path(shown(artifacts[node], tmp_path, "page")["page"].path).read_text()
    assert all(word in page for word in words)
    assert "src=" not in page
    assert "<script" not in page


def test_gate_pages_are_shown_inside_the_page(artifacts, tmp_path):
    gates = artifacts["tokens"] / "gate"
    gates.mkdir(exist_ok=True)
    (gates / "tokens.html").write_text("<!doctype html><html><head></head><body><h1>ids in range</h1></body></html>")
    page = Path(shown(artifacts["tokens"], tmp_path, "page")["page"].path).read_text()
    assert "ids in range" in page
    assert page.count("<body>") == 1


def test_judge_is_shown_as_a_confusion_matrix(artifacts, tmp_path):
    matrix = {"categories": ["refused", "complied", "neither"], "counts": [[5, 0, 1], [0, 4, 0], [1, 0, 3]]}
    (artifacts["safety"] / CONFUSION).write_text(json.dumps(matrix))
    classes = shown(artifacts["safety"], tmp_path, "classes")["classes"]
    rows = classes.metadata["confusionMatrix"]["rows"]
    assert [row["row"] for row in rows] == matrix["counts"]
