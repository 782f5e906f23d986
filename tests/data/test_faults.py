"""Real faults in the data stages: killed workers, empty parts, drifting columns."""

from dataclasses import replace

import pyarrow.parquet as pq
import pytest
import ray
from tests.data.faults import document_rows, killing_workers, run_stage, write_documents, write_pages
from transformers import PreTrainedTokenizerFast

from qwenops.contracts.document import part_paths, write_part
from qwenops.contracts.manifest import digest_files
from qwenops.data.mixture.config import MixtureConfig
from qwenops.data.mixture.run import run as mixture
from qwenops.data.tokenizer.bpe import save, train
from qwenops.errors import ContractError

BY_PARTS = ("ingest", "quality", "dedup", "decontaminate", "tokens")
_PARTS, _DOCUMENTS = 4, 320


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """What each stage reads: the same texts as pages and as documents, and a tokenizer and a mixture of them."""
    folder = tmp_path_factory.mktemp("inputs")
    write_pages(folder / "ingest", _PARTS, _DOCUMENTS)
    rows = document_rows(_DOCUMENTS)
    write_documents(folder / "documents", rows, _PARTS)
    tokenizer: PreTrainedTokenizerFast = train([row["text"] for row in rows[:20]], 400, 2)
    (folder / "tokenizer").mkdir()
    save(tokenizer, folder / "tokenizer")
    return folder


@pytest.fixture
def inputs_of(inputs, make_stage):
    def choose(name):
        if name == "ingest":
            return {"pages": inputs / "ingest"}
        found = {"documents": inputs / "documents"}
        if name == "tokens":
            stage = make_stage("mixture")
            found["tokenizer"] = inputs / "tokenizer"
            mixture(MixtureConfig(proxies=0, sample_bytes=20_000), stage=stage, **found)
            found["mixture"] = stage.out
        return found

    return choose


@pytest.fixture(scope="module")
def ray_address():
    ray.init(num_cpus=2, object_store_memory=100_000_000, include_dashboard=False, log_to_driver=False)
    yield ray.get_runtime_context().gcs_address
    ray.shutdown()


@pytest.mark.parametrize(
    ("name", "where"), [*((name, "forks") for name in BY_PARTS), ("dedup", "ray"), ("tokens", "ray")]
)
def test_stage_whose_worker_is_killed_gives_the_same_output(name, where, inputs_of, make_stage, request):
    given = inputs_of(name)
    undisturbed, disturbed = make_stage(name), make_stage(f"{name}-killed")
    run_stage(name, given, undisturbed)
    disturbed.node = name
    if where == "ray":
        disturbed.context = replace(disturbed.context, ray_address=request.getfixturevalue("ray_address"))
    with killing_workers(1) as killed:
        run_stage(name, given, disturbed)
    assert len(killed) == 1
    assert digest_files(disturbed.out) == digest_files(undisturbed.out)
    counts = disturbed.counts
    assert counts == undisturbed.counts and counts["kept"] + sum(counts["dropped"].values()) == counts["read"]


@pytest.mark.parametrize("name", BY_PARTS)
def test_stage_with_empty_parts_accounts_for_the_others(name, inputs_of, make_stage, tmp_path):
    given = inputs_of(name)
    kind, source = ("pages", given["pages"]) if name == "ingest" else ("documents", given["documents"])
    parts = part_paths(source, kind)
    empty = pq.read_table(parts[0]).slice(0, 0)
    for place, table in enumerate([empty, *map(pq.read_table, parts), empty]):
        write_part(table, tmp_path / "with" / kind / f"part-{place:05}.parquet")
    stage = make_stage(name)
    run_stage(name, given | {kind: tmp_path / "with"}, stage)
    assert stage.counts["read"] == _DOCUMENTS


@pytest.mark.parametrize("name", BY_PARTS)
def test_stage_refuses_a_part_with_other_columns(name, inputs_of, make_stage, tmp_path):
    given = inputs_of(name)
    kind, source = ("pages", given["pages"]) if name == "ingest" else ("documents", given["documents"])
    for place, path in enumerate(part_paths(source, kind)):
        table = pq.read_table(path)
        if place == 2:
            table = table.set_column(3, "domain", [[7] * table.num_rows])
        write_part(table, tmp_path / "with" / kind / path.name)
    with pytest.raises(ContractError, match="part-00002") as caught:
        run_stage(name, given | {kind: tmp_path / "with"}, make_stage(name))
    assert "domain int64" in caught.value.found
