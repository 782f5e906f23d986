import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from tests.delivery.fabricated import fabricate, record_of

from qwenops.delivery.report.config import ReportConfig
from qwenops.delivery.report.page import render
from qwenops.delivery.report.run import run
from qwenops.delivery.report.sections.dag import NODES, transitive_reduction
from qwenops.errors import StageError
from qwenops.platform.context import RunContext
from qwenops.platform.observe.cost import cost_entry
from qwenops.platform.pictures.charts import Series, line_chart, number, thin
from qwenops.platform.stage.handle import Stage
from qwenops.recipe.account import account_text
from qwenops.recipe.placement import Placement, Resources
from qwenops.recipe.prices import Prices

VOID = {"meta", "link", "br", "rect", "path", "polyline", "circle"}


class _Tags(HTMLParser):
    """Collects links and outside resources, and refuses tags that do not nest."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.links: list[str] = []
        self.outside: list[str] = []
        self.text: list[str] = []

    def handle_starttag(self, tag, attrs):
        facts = dict(attrs)
        self.links += [facts["href"]] if tag == "a" else []
        self.outside += [tag] if tag in ("script", "link", "img", "iframe") or facts.get("src") else []
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def _read(page: str) -> _Tags:
    tags = _Tags()
    tags.feed(page)
    assert not tags.open
    return tags


@pytest.fixture
def artifacts(tmp_path):
    return fabricate(tmp_path / "stages")


def test_page_of_a_whole_run_is_one_file_and_its_links_lead_somewhere(tmp_path, artifacts):
    tags = _read(render(record_of(artifacts), artifacts))
    assert tags.outside == []
    assert len(tags.links) > 10
    assert all((tmp_path / link).is_file() for link in tags.links)


def test_page_shows_every_section_and_the_figures_of_the_run(artifacts):
    page = render(record_of(artifacts), artifacts)
    text = " ".join(_read(page).text)
    for heading in ("Gate", "Stages", "Data", "Pre-training", "Long context", "Post-training", "Safety", "Benchmarks"):
        assert f"<h2>{heading}</h2>" in page
    shown = ("81%", "86%", "near 772", "0.985", "4.077", "fraud, zh", "debian-doc-zh", "qwenops-tiny-chat/1")
    for words in (*shown, "answers no <sentence>"):
        assert words in text


def _with(artifacts: dict[str, Path], node: str, **figures: float | None) -> str:
    """Text of the page with some figures of a node changed, or left out where the new one is None."""
    path = artifacts[node] / "manifest.json"
    plain = json.loads(path.read_text())
    changed = plain["metrics"] | {name.replace("__", "."): value for name, value in figures.items()}
    path.write_text(json.dumps(plain | {"metrics": {k: v for k, v in changed.items() if v is not None}}))
    return " ".join(" ".join(_read(render(record_of(artifacts), artifacts)).text).split())


def test_page_says_what_an_untrustworthy_judge_found_is_not_measured(artifacts):
    tile = "harmful answers after alignment"
    assert f"6.0% {tile}" in _with(artifacts, "safety")
    for found, words in ((0.65, "is 0.65, below 0.85"), (None, "was not measured")):
        text = _with(artifacts, "safety", judge__balanced_accuracy=found)
        assert f"not measured {tile}" in text
        assert f"balanced accuracy on labels of people {words}" in text
    assert "answers without a verdict, lost ones among them" in text


def test_page_says_that_the_online_stage_kept_its_start(artifacts):
    words = "The online stage kept the policy it started from"
    assert words not in _with(artifacts, "online")
    assert words in _with(artifacts, "online", kept_start=1.0)


def test_page_counts_answers_that_were_cut_or_lost(artifacts):
    text = _with(artifacts, "online")
    assert "rank 9,600 417 23 synthesize - 98 6 benchmarks - - 11" in text
    assert "online, first episode - 31% - online, kept policy - 14% -" in text


def test_page_says_whose_benchmark_it_is(artifacts):
    text = _with(artifacts, "benchmarks")
    assert "continuation.accuracy (own) 29% 30% 31%" in text
    assert "gsm8k.exact_match - - 4.0%" in text


def test_page_of_a_failed_run_shows_the_error_and_what_there_is(artifacts):
    reached = list(artifacts)[:8]
    record = record_of(artifacts)
    stages = {node: record["stages"][node] for node in reached}
    stages["pretrain"] = {
        "status": "failed",
        "seconds": 1.0,
        "metrics": {},
        "warnings": [],
        "error": {"family": "StageError", "message": "the loss is <nan>"},
    }
    record |= {"status": "failed", "stages": stages, "model": {"path": "", "alias": None, "gate": {"passed": False}}}
    page = render(record, {node: artifacts[node] for node in reached})
    text = " ".join(_read(page).text)
    assert "the loss is <nan>" in text
    assert "gate" not in text.split("Stages")[0]
    assert "<h2>Data</h2>" in page
    assert "<h2>Safety</h2>" not in page


def test_dropped_rows_of_which_nothing_can_be_shown_are_no_examples(artifacts):
    sample = artifacts["quality"] / "dropped_sample.jsonl"
    rows = [
        {"id": "1", "reason": "classifier", "text": " "},
        {"id": "2", "reason": "classifier", "url": "", "text": ""},
    ]
    rows += [{"id": "3", "reason": "classifier", "url": "folder://own/3", "text": ""}]
    sample.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    page = render(record_of(artifacts), artifacts)
    (shown,) = re.findall(r"<summary>quality: classifier</summary>(.*?)</details>", page)
    assert shown.count("<pre") == 1
    assert "folder://own/3" in shown


def test_page_shows_the_funnel_in_full_with_escaped_examples(artifacts):
    page = render(record_of(artifacts), artifacts)
    for text in ("quality: classifier", "dedup: near", "manuals &lt;en&gt;", "relaxed", "email 12", "about "):
        assert text in page, text
    assert "&lt;script&gt;alert(&#x27;symbols&#x27;)&lt;/script&gt;" in page
    assert "<script>alert" not in page


def test_page_of_nothing_is_still_a_page():
    assert "not run" in " ".join(_read(render({}, {})).text)


def test_page_survives_figures_that_are_not_numbers(artifacts):
    with (artifacts["online"] / "curves.jsonl").open("a") as stream:
        stream.write(json.dumps({"name": "reward.merging", "step": 99, "value": float("nan")}) + "\n")
    _read(render(record_of(artifacts), artifacts))


def _without_measurements(value):
    """The same plain data with null for every measured number; a depth is a setting."""
    if isinstance(value, dict):
        return {key: item if key == "depth" else _without_measurements(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_measurements(item) for item in value]
    return None if isinstance(value, float) else value


def test_page_survives_files_whose_measurements_are_null(artifacts):
    for path in (path for folder in artifacts.values() for path in folder.rglob("*.json")):
        if path.name != "manifest.json":
            path.write_text(json.dumps(_without_measurements(json.loads(path.read_text()))))
    _read(render(record_of(artifacts), artifacts))


def test_report_stage_writes_the_page_with_links_from_its_own_folder(tmp_path, artifacts):
    out = tmp_path / "stages" / "report" / ".key.work"
    out.mkdir(parents=True)
    context = RunContext(store=str(tmp_path / "stages"), events="", cache="", run_name="tiny")
    stage = Stage("report", 7, context, out, tmp_path / "scratch")
    run(ReportConfig(), stage=stage, **artifacts)
    page = (out / "report.html").read_text()
    assert stage.metrics["report.bytes"] == len(page.encode()) < 500_000
    assert all((out / link).is_file() for link in _read(page).links)


def test_report_stage_refuses_a_page_that_is_too_large(tmp_path, artifacts):
    context = RunContext(store=str(tmp_path), events="", cache="")
    stage = Stage("report", 7, context, tmp_path, tmp_path)
    with pytest.raises(StageError, match="too large"):
        run(ReportConfig(most_bytes=10_000), stage=stage, **artifacts)


def test_line_chart_keeps_the_line_inside_the_picture():
    points = [(i, 1000.0 if i == 0 else 1 / i) for i in range(5000)]
    svg = line_chart("loss", [Series("a", points)], "step", "")
    places = re.search(r'points="([^"]+)"', svg).group(1).split()
    assert len(places) < 300
    width, height = map(int, re.search(r'viewBox="0 0 (\d+) (\d+)"', svg).groups())
    for place in places:
        x, y = map(float, place.split(","))
        assert 0 <= x <= width
        assert 0 <= y <= height


def test_thin_keeps_both_ends():
    points = [(float(i), float(i)) for i in range(1000)]
    kept = thin(points)
    assert (kept[0], kept[-1]) == (points[0], points[-1])


@pytest.mark.parametrize(("value", "text"), [(None, "-"), (0.98512, "0.985"), (2048, "2,048"), (692864.0, "692,864")])
def test_number_reads_well(value, text):
    assert number(value) == text


def test_essential_edges_leave_out_what_a_longer_path_says():
    assert transitive_reduction([("a", "b"), ("b", "c"), ("a", "c")]) == [("a", "b"), ("b", "c")]


def test_picture_knows_every_node_of_the_fabricated_run(artifacts):
    assert set(artifacts) | {"report"} == set(NODES)


def test_record_paths_may_be_relative(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    artifacts = fabricate(Path("run") / "stages")
    links = _read(render(record_of(artifacts), artifacts)).links
    assert all((tmp_path / "run" / link).is_file() for link in links)


def test_page_draws_cost_where_prices_are_given_and_not_elsewhere(artifacts):
    record = record_of(artifacts)
    assert "<h2>Cost</h2>" not in render(record, artifacts)
    account = account_text(
        Placement(
            name="p",
            image="i",
            resources={"pretraining": Resources(cpu="16", accelerator="nvidia.com/gpu", num_accelerators=8)},
            prices=Prices(currency="EUR", accelerator_hour=3.0),
            budget=1.0,
        )
    )
    record["stages"]["pretrain"]["seconds"] = 3600.0
    record["stages"]["pretrain"]["status"] = "succeeded"
    record |= cost_entry(record["stages"], {"pretrain": "pretraining"}, account)
    page = render(record, artifacts)
    text = " ".join(_read(page).text)
    assert "<h2>Cost</h2>" in page
    assert "24 EUR  of a budget of 1" in text
    assert record["cost"]["stages"]["pretrain"] == {"processor_hours": 16.0, "accelerator_hours": 8.0, "money": 24.0}
