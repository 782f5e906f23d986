import errno
import os
import signal
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ray

from qwenops.contracts.document import documents_from_rows, part_paths, write_part
from qwenops.errors import ContractError, PlatformError, StageError
from qwenops.platform.context import RunContext
from qwenops.platform.observe.progress import Progress
from qwenops.platform.ray.documents import PartResult, map_parts, map_pieces


@pytest.fixture(scope="module")
def _one_ray() -> Iterator[str]:
    ray.init(num_cpus=2, object_store_memory=100_000_000, include_dashboard=False, log_to_driver=False)
    yield ray.get_runtime_context().gcs_address
    ray.shutdown()


@pytest.fixture(params=["forks", "ray"])
def context(request, tmp_path) -> RunContext:
    address = request.getfixturevalue("_one_ray") if request.param == "ray" else ""
    return RunContext(str(tmp_path), str(tmp_path), str(tmp_path), ray_address=address)


def _parts(folder: Path, count: int) -> list[Path]:
    for part in range(count):
        table = pa.table({"id": [f"{part}-{n}" for n in range(3)], "value": [part] * 3})
        write_part(table, folder / "rows" / f"part-{part:05}.parquet")
    return part_paths(folder, "rows")


def _first_two(table: pa.Table, fault: str = "") -> PartResult:
    if fault and table["value"][0].as_py() == 1:
        ours = ContractError("bad row", expected="good", found=fault, action="mend")
        raise ours if fault == "ours" else KeyError(fault)
    return PartResult({"head": table.slice(0, 2), "tail": table.slice(2)}, {"rows": table.num_rows})


def test_map_parts_writes_each_table_under_the_name_of_its_part(context, tmp_path):
    parts = _parts(tmp_path, 3)
    with Progress("test", 3, "parts", bar=False) as progress:
        summaries = map_parts(context, parts, _first_two, tmp_path / "out", progress=progress)
    assert summaries == [{"rows": 3}] * 3
    names = [path.name for path in parts]
    assert [path.name for path in part_paths(tmp_path / "out", "head")] == names
    tails = [pq.read_table(path)["id"].to_pylist() for path in part_paths(tmp_path / "out", "tail")]
    assert tails == [["0-2"], ["1-2"], ["2-2"]]


def test_map_parts_error_keeps_its_family_and_finished_parts_are_not_done_again(context, tmp_path):
    parts, out = _parts(tmp_path, 3), tmp_path / "out"
    with pytest.raises(ContractError, match=r"part-00001: bad row"):
        map_parts(context, parts, partial(_first_two, fault="ours"), out)
    with pytest.raises(StageError, match="foreign"):
        map_parts(context, parts, partial(_first_two, fault="foreign"), out)
    finished = {path.name: path.stat().st_mtime_ns for path in part_paths(out, "head")}
    assert map_parts(context, parts, _first_two, out) == [{"rows": 3}] * 3
    after = {path.name: path.stat().st_mtime_ns for path in part_paths(out, "head")}
    assert len(after) == 3 and all(after[name] == time for name, time in finished.items())


def _dies(name: str, marks: Path, times: int) -> dict[str, str]:
    """Kill this worker the first `times` times the piece is done."""
    for attempt in range(times):
        if not (marks / f"{name}-{attempt}").exists():
            (marks / f"{name}-{attempt}").touch()
            os.kill(os.getpid(), signal.SIGKILL)
    return {"name": name}


def test_piece_whose_worker_is_killed_is_done_again(context, tmp_path):
    found = map_pieces(context, ["a", "b", "c"], partial(_dies, marks=tmp_path, times=1), tmp_path / "out")
    assert found == [{"name": name} for name in "abc"]
    assert len(list(tmp_path.glob("?-0"))) == 3


def test_piece_that_kills_every_worker_ends_with_one_error(context, tmp_path):
    with pytest.raises(StageError, match="piece of the stage") as caught:
        map_pieces(context, ["a"], partial(_dies, marks=tmp_path, times=1000), tmp_path / "out")
    assert "run again" in str(caught.value) and "died" in str(caught.value)
    assert len(list(tmp_path.glob("a-*"))) == 4


def _disk_full(name: str) -> dict[str, str]:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), name)


def test_piece_on_a_full_disk_is_the_platforms_fault(context, tmp_path):
    with pytest.raises(PlatformError, match="No space left") as caught:
        map_pieces(context, ["a"], _disk_full, tmp_path / "out")
    assert "free some space" in caught.value.action


@pytest.mark.parametrize("fault", ["cut", "drift"])
def test_part_that_breaks_its_contract_is_named(context, tmp_path, fault):
    for number in range(2):
        write_part(documents_from_rows([]), tmp_path / "documents" / f"part-{number:05}.parquet")
    second = part_paths(tmp_path)[1]
    if fault == "cut":
        second.write_bytes(second.read_bytes()[:-20])
    else:
        pq.write_table(pq.read_table(second).drop_columns(["quality"]), second)
    with pytest.raises(ContractError, match="part-00001"):
        map_parts(context, part_paths(tmp_path), _first_two, tmp_path / "out")
