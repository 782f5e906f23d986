"""`qwenops cleanup`: what no kept run names goes, and nothing else."""

import json
import os

import pytest
from tests.dags.conftest import qwenops

from qwenops.errors import RecipeError
from qwenops_pipelines.cleanup import find_unused


@pytest.fixture
def runs(tmp_path):
    """Three runs: the second made `tokens` again, the third `tokenizer`; a stage of a stopped run left its scratch."""
    made = [{"tokens": "a", "tokenizer": "a"}, {"tokens": "b", "tokenizer": "a"}, {"tokens": "b", "tokenizer": "c"}]
    for day, artifacts in enumerate(made, 1):
        stages = {}
        for node, fingerprint in artifacts.items():
            path = tmp_path / "stages" / node / fingerprint
            path.mkdir(parents=True, exist_ok=True)
            (path / "manifest.json").write_text("{}" * day)
            outputs = {"output": {"path": str(path), "digest": "x", "records": 1}}
            stages[node] = {"status": "succeeded", "seconds": 1.0, "metrics": {}, "warnings": [], "outputs": outputs}
        record = {"run_name": "r", "recipe": "tiny", "status": "succeeded", "seconds": 1.0, "stages": stages}
        own = tmp_path / f"2026-12-0{day}T10-00-00Z"
        own.mkdir()
        (own / "run.json").write_text(json.dumps(record))
    (tmp_path / "latest").symlink_to("2026-12-03T10-00-00Z")
    (tmp_path / "stages/tokens/.d.scratch").mkdir()
    (tmp_path / "stages/tokens/.d.scratch/state.bin").write_bytes(b"0" * 5000)
    os.utime(tmp_path / "stages/tokens/.d.scratch", (1e9, 1e9))
    (tmp_path / "kfp/r-1").mkdir(parents=True)
    return tmp_path


def left(folder):
    return {path.relative_to(folder / "stages").as_posix() for path in (folder / "stages").glob("*/*")}


@pytest.mark.parametrize(
    ("keep", "expected", "records"),
    [
        (1, {"tokens/b", "tokenizer/c"}, 1),
        (2, {"tokens/b", "tokenizer/a", "tokenizer/c"}, 2),
        (3, {"tokens/a", "tokens/b", "tokenizer/a", "tokenizer/c"}, 3),
        (9, {"tokens/a", "tokens/b", "tokenizer/a", "tokenizer/c"}, 3),
    ],
)
def test_artifacts_of_the_kept_runs_stay_and_all_else_goes(runs, keep, expected, records):
    listed = qwenops("cleanup", runs, "--keep", keep)
    assert listed.returncode == 0, listed.stderr
    assert "--yes deletes them" in listed.stdout and ".d.scratch" in listed.stdout
    assert len(left(runs)) == 5
    done = qwenops("cleanup", runs, "--keep", keep, "--yes")
    assert done.returncode == 0, done.stderr
    assert left(runs) == expected
    assert len(list(runs.glob("2026*/run.json"))) == records
    assert (runs / "latest" / "run.json").exists()
    assert not list((runs / "kfp").iterdir())
    assert find_unused(runs, keep) == ([], [])


@pytest.mark.parametrize("stopped", ["failed", "killed"])
def test_state_that_the_next_run_goes_on_with_stays(runs, stopped):
    if stopped == "failed":
        file = runs / "latest/run.json"
        file.write_text(file.read_text().replace("succeeded", "failed"))
    else:
        os.utime(runs / "stages/tokens/.d.scratch")
        os.utime(runs / "latest/run.json", (1.1e9, 1.1e9))
    unused, _ = find_unused(runs, 1)
    assert ".d.scratch" not in {one.path.name for one in unused}


def test_largest_comes_first(runs):
    unused, _ = find_unused(runs, 1)
    assert unused[0].path.name == ".d.scratch" and unused[0].num_bytes == 5000


def test_folder_without_a_run_is_left_alone(tmp_path):
    (tmp_path / "stages/mine/x").mkdir(parents=True)
    with pytest.raises(RecipeError, match="no run lies"):
        find_unused(tmp_path, 1)
    assert qwenops("cleanup", tmp_path, "--yes").returncode == 2
    assert (tmp_path / "stages/mine/x").exists() and not (tmp_path / ".lock").exists()
    assert qwenops("cleanup", tmp_path, "--keep", "0").returncode == 2
