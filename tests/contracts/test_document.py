import json

import pyarrow as pa
import pytest

from qwenops.contracts.document import (
    Funnel,
    check_documents,
    documents_from_rows,
    dropped_table,
    funnel_of,
    iter_documents,
    part_paths,
    read_documents,
    read_funnel,
    write_funnel,
    write_part,
)
from qwenops.errors import ContractError

_ROW = {
    "id": "a", "text": "caf\u00e9", "source": "s", "domain": "web", "url": "u", "license": "MIT", "lang": "fr",
    "lang_score": 0.9, "split": "train",
}  # fmt: skip


def _table(*changes: dict) -> pa.Table:
    return documents_from_rows(_ROW | change for change in changes)


def test_documents_that_keep_the_contract_are_accepted():
    check_documents(_table({}, {"id": "b", "split": "heldout", "domain": "code", "lang": "code"}), "here")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (({}, {}), "ids are not unique"),
        (({"id": ""},), "ids are not unique"),
        (({"text": ""},), "empty text"),
        (({"domain": "news"},), "unknown domain"),
        (({"split": "test"},), "unknown split"),
    ],
)
def test_documents_that_break_the_contract_are_refused_with_the_place(changes, message):
    with pytest.raises(ContractError, match=f"part-7: {message}"):
        check_documents(_table(*changes), "part-7")


def test_documents_without_a_column_are_refused():
    with pytest.raises(ContractError, match="wrong columns"):
        check_documents(_table({}).drop_columns(["license"]), "here")


def test_documents_are_read_in_the_order_of_parts(tmp_path):
    write_part(_table({"id": "c"}), tmp_path / "documents" / "part-00001.parquet")
    write_part(_table({"id": "a"}, {"id": "b"}), tmp_path / "documents" / "part-00000.parquet")
    assert read_documents(tmp_path)["id"].to_pylist() == ["a", "b", "c"]
    assert [row["id"] for row in iter_documents(tmp_path, ["id"])] == ["a", "b", "c"]


def test_artifact_without_documents_names_the_stage_to_run_again(tmp_path):
    with pytest.raises(ContractError, match="run the stage that makes it again"):
        part_paths(tmp_path)


def test_funnels_of_parts_add_up_to_the_funnel_of_the_whole(tmp_path):
    first = funnel_of("quality", _table({}, {"id": "b"}), dropped_table([("x", "empty", "x.txt", "")]))
    second = funnel_of("quality", _table({"id": "c", "domain": "code"}), dropped_table([("y", "empty", "y.txt", "z")]))
    total = first + second
    assert (total.read, total.kept, total.dropped) == (5, 3, {"empty": 2})
    assert total.by_domain == {"code": {"documents": 1, "bytes": 5}, "web": {"documents": 2, "bytes": 10}}
    assert total.bytes_kept == 15
    write_funnel(tmp_path, total)
    assert read_funnel(tmp_path) == total


def test_dropped_sample_is_short_and_independent_of_order(tmp_path):
    rows = [(f"id{n:03}", ("empty", "other")[n % 2], f"folder://own/{n}", "x" * 1000) for n in range(100)]
    texts = []
    for order in (rows, rows[::-1]):
        write_funnel(tmp_path, Funnel("quality"), dropped_table(order))
        texts.append((tmp_path / "dropped_sample.jsonl").read_text())
    assert texts[0] == texts[1]
    sample = [json.loads(line) for line in texts[0].splitlines()]
    assert len(sample) == 40 and {len(row["text"]) for row in sample} == {300}
