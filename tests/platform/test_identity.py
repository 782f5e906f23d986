"""An edit makes exactly those stages again whose output may follow from it, and what reads them.

The yardstick is the DAG itself and what a person says an edit concerns; the edits are made in a copy of the package,
and no stage is run.
"""

import ast
import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.architecture.places import LIBRARY, ROOT

from qwenops.platform.identity.definitions import digest_of
from qwenops.platform.identity.outside import digest_outside
from qwenops.platform.identity.sources import Sources
from qwenops.recipe.outside import Outside
from qwenops.recipe.schema import resolve
from qwenops_pipelines.dags.nodes import NODES
from qwenops_pipelines.recipes import load_recipe

ALL = {node.name for node in NODES}
TRAINING = {"mixture", "pretrain", "extend", "upcycle", "sft_seed", "sft", "reward", "dpo", "online"}
LONG_AGO = 1_700_000_000


def with_readers(*names):
    """The nodes and all that read them, at any distance."""
    found = set(names)
    for node in NODES:
        if found & set(node.inputs.values()):
            found.add(node.name)
    return found


class Place:
    """A copy of the package, and a recipe that names things beside it."""

    def __init__(self, folder):
        self.folder, self.package, self.cache = folder, folder / "package", folder / "cache"
        shutil.copytree(LIBRARY, self.package, ignore=shutil.ignore_patterns("__pycache__"))
        self.write("pages/a.txt", "A page.\n" * 50)
        self.write("evalsets/gsm8k/test.jsonl", '{"question": "1 + 1?", "answer": "#### 2"}\n')
        self.write("evalsets/mmlu/test/law_test.csv", "Which?,a,b,c,d,A\n")
        self.write("form.csv", "id,score\n1,\n")
        self.write("labels.jsonl", '{"prompt": "p", "response": "r", "label": "refused"}\n')
        self.write("rankings.jsonl", "{}\n")
        self.write("weights/config.json", "{}")
        self.overrides = {
            "collect.sources": json.dumps([{"kind": "folder", "name": "mine", "path": str(folder / "pages")}]),
            "benchmarks.folder": folder / "evalsets",
            "benchmarks.tasks": '["gsm8k", "mmlu"]',
            "decontaminate.folder": folder / "evalsets",
            "decontaminate.sets": '["gsm8k"]',
            "multilingual.ratings_file": folder / "form.csv",
            "safety.labelled_file": folder / "labels.jsonl",
            "rank.annotations": folder / "rankings.jsonl",
        }

    def write(self, name, text):
        """Write a file beside the package, as one that has been there for long."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        os.utime(path, (LONG_AGO, LONG_AGO))

    def causes(self):
        """Node name to the causes of its output."""
        pairs = [f"{path}={value}" for path, value in self.overrides.items()]
        slices = resolve(load_recipe("smoke", pairs))
        sources = Sources(self.cache, [self.package], tracking_uri=self.registry)
        return {node.name: sources.causes(node.stage, slices[node.name].config) for node in NODES}

    def again(self, edit):
        """The nodes that run again after `edit(place)`."""
        before = self.causes()
        edit(self)
        after = self.causes()
        return with_readers(*(name for name in ALL if before[name] != after[name]))


@pytest.fixture
def place(tmp_path, shared_cache):
    made = Place(tmp_path)
    made.cache, made.registry = shared_cache, "http://mlflow:5000"
    return made


@pytest.fixture(scope="module")
def shared_cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


def line_in(file, function, line):
    """An edit: a statement at the beginning of a function or method."""

    def edit(place):
        path = place.package / file
        text = path.read_text(encoding="utf-8")
        name = function.split(".")[-1]
        body = next(
            node.body
            for node in ast.walk(ast.parse(text))
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name == name
        )
        first = body[1] if ast.unparse(body[0]).startswith(("'", '"')) and len(body) > 1 else body[0]
        lines = text.splitlines(keepends=True)
        lines.insert(first.lineno - 1, " " * first.col_offset + line + "\n")
        path.write_text("".join(lines), encoding="utf-8")

    return edit


def text_in(file, old, new):
    """An edit: one text for another in a file of the package."""

    def edit(place):
        path = place.package / file
        text = path.read_text(encoding="utf-8")
        assert old in text
        path.write_text(text.replace(old, new, 1), encoding="utf-8")

    return edit


def appended(file, text):
    """An edit: text at the end of a file of the package."""
    return lambda place: (place.package / file).open("a", encoding="utf-8").write(text)


def outside(name, text):
    """An edit: a file beside the package."""
    return lambda place: place.write(name, text)


def in_json(file, change):
    """An edit: a JSON file of the package, changed by `change`."""

    def edit(place):
        path = place.package / file
        plain = json.loads(path.read_text(encoding="utf-8"))
        change(plain)
        path.write_text(json.dumps(plain, ensure_ascii=False), encoding="utf-8")

    return edit


def first_principle(plain):
    plain[0]["principle"] += " Always."


def first_refusal(plain):
    next(iter(plain["refusals"].values())).append("i would rather not")


# Edit in words to the edit, and to the nodes whose output follows from it; what reads these comes from the DAG.
EDITS = {
    "one line of the loss that DPO uses": (line_in("training/loss.py", "dpo_loss", "beta = -beta"), ("dpo", "online")),
    "one line of the answer scorer": (
        line_in("evaluation/scoring.py", "score_response", "response = response.lower()"),
        ("benchmarks",),
    ),
    "one principle of the constitution": (
        in_json("instructions/synthesize/principles.json", first_principle),
        ("synthesize",),
    ),
    "one safety phrase": (in_json("evaluation/safety/phrases.json", first_refusal), ("safety",)),
    "a comment": (appended("training/loss.py", "\n# Seen on a walk.\n"), ()),
    "a new file in a source folder": (outside("pages/below/b.txt", "Another page."), ("collect",)),
    "one changed line in a benchmark file": (
        outside("evalsets/gsm8k/test.jsonl", '{"question": "1 + 2?", "answer": "#### 3"}\n'),
        ("benchmarks", "decontaminate"),
    ),
    "a filled rating form": (outside("form.csv", "id,score\n1,5\n"), ("multilingual",)),
    # Our own.
    "the loss of every training": (
        line_in("training/loss.py", "_matmul_dtype", "hidden = hidden + 0"),
        ("mixture", "pretrain", "extend", "upcycle", "sft_seed", "sft"),
    ),
    "the pair loss of the reward model": (
        line_in("training/loss.py", "reward_pair_loss", "chosen = -chosen"),
        ("reward",),
    ),
    "PPO's loss": (line_in("training/loss.py", "ppo_value_loss", "clip = 2 * clip"), ("online",)),
    "a script that only another process runs": (
        line_in("platform/sandbox/guest/referee.py", "judge", "job = dict(job)"),
        ("synthesize", "benchmarks"),
    ),
    "the sandbox": (
        line_in("platform/sandbox/judging.py", "_end", "process.terminate()"),
        ("synthesize", "benchmarks"),
    ),
    "a set that only the benchmarks read": (
        outside("evalsets/mmlu/test/law_test.csv", "Which?,a,b,c,d,B\n"),
        ("benchmarks",),
    ),
    "labels of the judge": (
        outside("labels.jsonl", '{"prompt": "p", "response": "r", "label": "complied"}\n'),
        ("safety",),
    ),
    "rankings of people": (outside("rankings.jsonl", '{"id": 1}\n'), ("rank",)),
    "an expectation suite": (
        in_json("contracts/expectations/preferences.json", lambda plain: plain["summary"][0].update(severity="info")),
        ("rank", "synthesize"),
    ),
    "a prompt of the safety set": (
        text_in("tasks/safety_prompts.py", "I will not help with this request.", "I will not help."),
        ("ontology", "synthesize", "safety", "multilingual"),
    ),
    "a docstring": (text_in("training/loss.py", '"""DPO: ', '"""Direct preference optimisation: '), ()),
    "the description of a config field": (
        text_in("training/config.py", "Linear warm-up; house choice", "Rising rate; house choice"),
        (),
    ),
    "line breaks": (
        text_in("training/loss.py", "torch.ones_like(targets, dtype", "torch.ones_like(\n targets, dtype"),
        (),
    ),
    "a function that nothing uses": (appended("training/loss.py", "\n\ndef unused():\n    return 1\n"), ()),
    "a README": (appended("training/README.md", "More.\n"), ()),
    "an import for type checkers": (
        appended("training/loss.py", "\nif TYPE_CHECKING:\n    from qwenops.data.collect import run\n"),
        (),
    ),
    "the console": (line_in("platform/observe/progress.py", "advance", "amount = 0"), ()),
    "the log": (line_in("platform/logs.py", "event", "fields = {}"), ()),
    "a module that a stage imports by a literal name": (
        line_in("generation/factory.py", "_short_name", "folder = folder.parent"),
        ("quality", "ontology", "evolve", "rank", "synthesize", "benchmarks", "safety", "multilingual"),
    ),
    "what a stage reports to": (line_in("platform/stage/handle.py", "curve", "value = 2 * value"), tuple(ALL)),
}


@pytest.mark.parametrize("name", EDITS)
def test_edit_makes_exactly_these_stages_again(place, name):
    edit, concerned = EDITS[name]
    assert place.again(edit) == with_readers(*concerned)


def test_package_that_acts_on_import_concerns_all_that_import_it(place):
    edit = appended("training/__init__.py", "\nimport torch\n\ntorch.set_float32_matmul_precision('medium')\n")
    again = place.again(edit)
    assert again >= with_readers(*TRAINING)
    assert not again & {"collect", "ingest"}


def test_scorer_concerns_the_languages_where_they_are_given_exams(place):
    place.overrides["multilingual.folder"] = place.folder / "evalsets"
    assert place.again(EDITS["one line of the answer scorer"][0]) == with_readers("benchmarks", "multilingual")


CASES = ROOT.parent / "shared" / "cases" / "ground" / "identity.jsonl"


@pytest.mark.skipif(not CASES.is_file(), reason="the cases are not on this machine")
def test_cases_name_the_stages_that_these_edits_make_again(place):
    for row in map(json.loads, CASES.read_text(encoding="utf-8").splitlines()):
        _, concerned = EDITS[row["edit"]]
        yes, _, no = row["runs_again"].partition("not ")
        again = with_readers(*concerned)
        words = {word.strip(",;") for word in yes.split()}
        assert words & ALL <= again, row
        assert not {node.name for node in NODES if {node.name, node.area} & {w.strip(",") for w in no.split()}} & again
        if "what read" not in yes and "after" not in yes:
            assert words & ALL == again, row


def test_file_of_the_same_size_and_time_but_another_content_counts(place):
    assert place.again(outside("form.csv", "id,score\n1,\n")) == set()
    assert place.again(outside("form.csv", "id,score\n2,\n")) == with_readers("multilingual")


def test_touched_file_counts_as_it_was(place):
    assert place.again(lambda there: os.utime(there.folder / "form.csv")) == set()


def test_file_that_is_taken_away_counts_and_so_does_its_coming(place):
    assert place.again(lambda there: (there.folder / "form.csv").unlink()) == with_readers("multilingual")
    assert place.again(outside("form.csv", "id,score\n1,\n")) == with_readers("multilingual")


@pytest.mark.parametrize("left", ["[]", "null", '{"files": {"a.txt": [7]}}', '{"a.txt": [7]}', "half"])
def test_digests_that_something_else_wrote_are_taken_again(tmp_path, left):
    folder, cache = tmp_path / "in", tmp_path / "cache"
    folder.mkdir()
    (folder / "a.txt").write_text("one")
    os.utime(folder / "a.txt", (LONG_AGO, LONG_AGO))
    thing = Outside("files", str(folder))
    expected = digest_outside(thing, cache)
    memory = cache / "identity" / f"{digest_of(str(folder))}.json"
    memory.parent.mkdir(parents=True, exist_ok=True)
    memory.write_text(left)
    assert digest_outside(thing, cache) == expected


def test_folder_with_a_file_whose_name_is_not_utf8_has_a_digest(tmp_path):
    digests, folder = [], tmp_path / "in"
    folder.mkdir()
    for name in (b"caf\xe9.txt", b"caf\xe8.txt"):
        path = os.fsencode(folder) + b"/" + name
        with open(path, "w") as stream:
            stream.write("one")
        digests.append(digest_outside(Outside("files", str(folder)), tmp_path / "cache"))
        os.unlink(path)
    assert len(set(digests)) == 2


def test_path_counts_from_where_the_run_starts(place, monkeypatch):
    place.overrides["multilingual.ratings_file"] = "form.csv"
    place.write("elsewhere/form.csv", "id,score\n1,3\n")
    monkeypatch.chdir(place.folder)
    assert place.again(outside("form.csv", "id,score\n1,4\n")) == with_readers("multilingual")
    assert place.again(lambda there: monkeypatch.chdir(there.folder / "elsewhere")) == with_readers("multilingual")


def test_weights_count_where_they_are_taken_up(place):
    place.overrides |= {"pretrain.init_from": place.folder / "weights", "tokenizer.init_from": place.folder / "weights"}
    assert place.again(outside("weights/model.safetensors", "new")) == with_readers("tokenizer", "pretrain")


def test_hub_id_counts_by_its_commit(place, monkeypatch, tmp_path):
    import huggingface_hub.constants as constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    place.overrides["collect.sources"] = json.dumps(
        [{"kind": "hub", "name": "set", "dataset": "team/set", "revision": "main"}]
    )
    place.write("hub/datasets--team--set/refs/main", "a" * 40)
    assert place.again(outside("hub/datasets--team--set/refs/main", "b" * 40)) == ALL
    place.overrides["collect.sources"] = place.overrides["collect.sources"].replace('"main"', f'"{"c" * 40}"')
    assert place.again(outside("hub/datasets--team--set/refs/main", "d" * 40)) == set()


def test_hub_id_is_looked_up_where_nothing_has_loaded_the_hubs_client(tmp_path):
    # As a run does before its first stage.
    look = "from qwenops.platform.identity.outside import *; "
    look += "print(digest_outside(Outside('model', 'owner/name'), Path('.')))"
    alone = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    result = subprocess.run([sys.executable, "-c", look], cwd=tmp_path, env=alone, capture_output=True, text=True)
    assert (result.stdout, result.stderr) == ("absent\n", "")


def test_library_counts_where_it_computes(place, monkeypatch):
    true, newer = importlib.metadata.version, set()
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "99.0" if name in newer else true(name))

    def upgrade(name):
        return lambda _: newer.add(name)

    assert place.again(upgrade("lightgbm")) == with_readers("mixture")
    assert place.again(upgrade("trafilatura")) == with_readers("ingest")
    again = place.again(upgrade("tokenizers"))
    assert again >= with_readers("tokenizer", "pretrain", "benchmarks")
    assert not again & {"collect", "ingest"}


def test_installed_package_counts_as_a_source_by_its_version(place, monkeypatch):
    place.overrides["collect.sources"] = json.dumps(
        [{"kind": "python", "name": "code", "packages": ["pluggy", "stdlib"]}]
    )
    true = importlib.metadata.distribution

    class Newer:
        version = "99.0"

        def read_text(self, _):
            return None

    def upgrade(_):
        monkeypatch.setattr(
            importlib.metadata, "distribution", lambda name: Newer() if name == "pluggy" else true(name)
        )

    assert place.again(upgrade) == ALL


def test_identity_of_all_stages_takes_less_than_a_second(place):
    place.causes()
    began = time.process_time()
    place.causes()
    assert time.process_time() - began < 1


def test_causes_are_the_same_on_another_place_of_the_same_code(place, tmp_path):
    before = place.causes()
    shutil.copytree(place.package, tmp_path / "moved")
    place.package = tmp_path / "moved"
    place.cache = Path(tmp_path / "empty")
    assert place.causes() == before


def test_another_registry_makes_exactly_the_stage_that_registers_run_again(place):
    def moved(place):
        place.registry = "http://elsewhere:5000"

    assert place.again(moved) == with_readers("register") == {"register", "report"}
