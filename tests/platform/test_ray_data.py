from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ray

from qwenops.contracts.document import part_paths, write_part
from qwenops.errors import ContractError, StageError
from qwenops.platform.context import RunContext
from qwenops.platform.progress import Progress
from qwenops.platform.ray_data import PartResult, gather, map_parts, read


@pytest.fixture(scope="module", autouse=True)
def _one_ray() -> Iterator[None]:
    yield
    ray.shutdown()


def _parts(folder: Path, count: int) -> list[Path]:
    for part in range(count):
        table = pa.table({"id": [f"{part}-{n}" for n in range(3)], "value": [part] * 3})
        write_part(table, folder / "documents" / f"part-{part:05}.parquet")
    return part_paths(folder)


def _first_two(table: pa.Table, fault: str = "") -> PartResult:
    if fault and table["value"][0].as_py() == 1:
        raise (
            ContractError("bad row", expected="good", found=fault, action="mend") if fault == "ours" else OSError(fault)
        )
    return PartResult({"head": table.slice(0, 2), "tail": table.slice(2)}, {"rows": table.num_rows})


def test_map_parts_writes_each_table_under_the_name_of_its_part(tmp_path):
    context = RunContext(str(tmp_path), str(tmp_path), str(tmp_path))
    parts = _parts(tmp_path, 3)
    with Progress("test", 3, "parts", bar=False) as progress:
        summaries = map_parts(context, parts, _first_two, tmp_path / "out", progress=progress)
    assert summaries == [{"rows": 3}] * 3
    names = [path.name for path in parts]
    assert [path.name for path in part_paths(tmp_path / "out", "head")] == names
    tails = [pq.read_table(path)["id"].to_pylist() for path in part_paths(tmp_path / "out", "tail")]
    assert tails == [["0-2"], ["1-2"], ["2-2"]]
    table = gather(read(context, parts[::-1], ["id"]))
    assert table["id"].to_pylist() == sorted(f"{part}-{n}" for part in range(3) for n in range(3))


def test_map_parts_error_keeps_its_family_and_finished_parts_are_not_done_again(tmp_path):
    context = RunContext(str(tmp_path), str(tmp_path), str(tmp_path))
    parts, out = _parts(tmp_path, 3), tmp_path / "out"
    with pytest.raises(ContractError, match=r"part-00001.parquet: bad row"):
        map_parts(context, parts, partial(_first_two, fault="ours"), out)
    with pytest.raises(StageError, match="foreign"):
        map_parts(context, parts, partial(_first_two, fault="foreign"), out)
    finished = {path.name: path.stat().st_mtime_ns for path in part_paths(out, "head")}
    assert map_parts(context, parts, _first_two, out) == [{"rows": 3}] * 3
    after = {path.name: path.stat().st_mtime_ns for path in part_paths(out, "head")}
    assert len(after) == 3 and all(after[name] == time for name, time in finished.items())
