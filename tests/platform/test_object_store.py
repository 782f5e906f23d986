"""Artifacts in S3, against a server that speaks S3: whole or not at all, verified when read."""

import threading
from pathlib import Path

import boto3
import pytest
from tests.platform.servers import KEYS, s3_server

from qwenops.contracts.manifest import Manifest, digest_files, read_manifest, write_manifest
from qwenops.errors import ContractError, PlatformError
from qwenops.platform.context import RunContext
from qwenops.platform.storage import addresses, artifacts
from qwenops.platform.storage.object_store import back_up_scratch, delete, fetch, publish

BUCKET = "qwenops"


@pytest.fixture(scope="module")
def endpoint():
    with s3_server() as address:
        yield address


@pytest.fixture
def bucket(endpoint, monkeypatch):
    for name, value in (KEYS | {"AWS_ENDPOINT_URL_S3": endpoint}).items():
        monkeypatch.setenv(name, value)
    client = boto3.client("s3", endpoint_url=endpoint)
    client.create_bucket(Bucket=BUCKET)
    yield client
    for item in client.list_objects_v2(Bucket=BUCKET).get("Contents", []):
        client.delete_object(Bucket=BUCKET, Key=item["Key"])
    client.delete_bucket(Bucket=BUCKET)


def _objects(client) -> list[str]:
    found = [item["Key"] for item in client.list_objects_v2(Bucket=BUCKET).get("Contents", [])]
    return [key for key in found if not key.endswith(addresses.PUBLISHED_MARK)]


def _artifact(folder: Path, identity: str, text: str = "one\n") -> Path:
    (folder / "shards").mkdir(parents=True)
    (folder / "shards" / "a.txt").write_text(text)
    (folder / "big.bin").write_bytes(bytes(range(256)) * 4000)
    (folder / "empty").write_text("")
    manifest = Manifest(
        node="tokens",
        fingerprint="f" * 64,
        artifact_id=identity,
        parents={},
        files=digest_files(folder),
        records=1,
        counts={},
        metrics={},
        warnings=(),
        seconds=1.0,
        config={},
        code_version="0",
        created_at="2026-01-01T00:00:00+00:00",
    )
    write_manifest(folder, manifest)
    return folder


URL = f"s3://{BUCKET}/stages/tokens/0123"


def test_published_artifact_comes_back_byte_for_byte(bucket, tmp_path):
    source = _artifact(tmp_path / "source", "a1")
    assert publish(source, URL)
    assert fetch(URL, tmp_path / "copy")
    assert digest_files(tmp_path / "copy") == digest_files(source)
    assert read_manifest(tmp_path / "copy") == read_manifest(source)
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_upload_that_was_killed_half_way_is_not_there(bucket, tmp_path):
    source = _artifact(tmp_path / "source", "a1")
    bucket.upload_file(str(source / "big.bin"), BUCKET, "stages/tokens/0123/a1/big.bin")
    assert not fetch(URL, tmp_path / "copy")
    assert not (tmp_path / "copy").exists()
    assert publish(source, URL)
    assert fetch(URL, tmp_path / "copy")


@pytest.mark.parametrize("damage", ["change", "truncate", "delete", "manifest"])
def test_damaged_object_is_noticed_and_replaced(bucket, tmp_path, damage):
    source = _artifact(tmp_path / "source", "a1")
    publish(source, URL)
    key = "stages/tokens/0123/" + ("manifest.json" if damage == "manifest" else "a1/shards/a.txt")
    if damage == "delete":
        bucket.delete_object(Bucket=BUCKET, Key=key)
    else:
        bucket.put_object(Bucket=BUCKET, Key=key, Body=b"two\n" if damage == "change" else b"{")
    assert not fetch(URL, tmp_path / "copy")
    assert not (tmp_path / "copy").exists()
    delete(URL)
    assert _objects(bucket) == []
    assert publish(source, URL)
    assert fetch(URL, tmp_path / "copy")


def test_local_copy_that_was_damaged_is_fetched_again(bucket, tmp_path):
    publish(_artifact(tmp_path / "source", "a1"), URL)
    fetch(URL, tmp_path / "copy")
    (tmp_path / "copy" / "shards" / "a.txt").write_text("two\n")
    assert fetch(URL, tmp_path / "copy")
    assert (tmp_path / "copy" / "shards" / "a.txt").read_text() == "one\n"


def test_of_concurrent_publishers_one_wins_whole(bucket, tmp_path):
    sources = [_artifact(tmp_path / f"s{i}", f"id{i}", text=f"text {i}\n") for i in range(4)]
    won: list[bool] = []
    start = threading.Barrier(len(sources))

    def race(source: Path) -> None:
        start.wait()
        won.append(publish(source, URL))

    threads = [threading.Thread(target=race, args=(source,)) for source in sources]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(won) == [False, False, False, True]
    assert fetch(URL, tmp_path / "copy")
    winner = read_manifest(tmp_path / "copy").artifact_id
    assert (tmp_path / "copy" / "shards" / "a.txt").read_text() == f"text {winner[2:]}\n"
    assert {key.split("/")[3] for key in _objects(bucket)} == {winner, "manifest.json"}


def test_scratch_of_a_lost_pod_is_there_for_the_next(bucket, tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    for folder in (first, second):
        folder.mkdir()
    url = f"s3://{BUCKET}/stages/tokens/.0123.scratch"
    with pytest.raises(RuntimeError, match="evicted"), back_up_scratch(first, url):
        (first / "state").mkdir()
        (first / "state" / "step-3").write_text("weights")
        (first / "state" / "latest.json").write_text("step-3")
        (first / "half.tmp").write_text("ha")
        raise RuntimeError("evicted")
    with back_up_scratch(second, url):
        assert (second / "state" / "latest.json").read_text() == "step-3"
        assert not (second / "half.tmp").exists()
    assert _objects(bucket) == []


def test_scratch_copy_follows_new_and_deleted_checkpoints(bucket, tmp_path):
    url, until = f"s3://{BUCKET}/scratch", 200
    with back_up_scratch(tmp_path, url, seconds=0.05):
        (tmp_path / "step-1").write_text("a")
        while "scratch/step-1" not in _objects(bucket) and (until := until - 1):
            threading.Event().wait(0.05)
        (tmp_path / "step-2").write_text("b")
        (tmp_path / "step-1").unlink()
        while _objects(bucket) != ["scratch/step-2"] and (until := until - 1):
            threading.Event().wait(0.05)
        assert _objects(bucket) == ["scratch/step-2"]


def test_missing_bucket_is_a_platform_error(bucket, tmp_path):
    with pytest.raises(PlatformError, match="object store"):
        publish(_artifact(tmp_path / "source", "a1"), "s3://no-such-bucket/x")


def test_input_that_is_not_intact_is_a_contract_error(bucket, tmp_path):
    context = RunContext(store="", events="", cache=str(tmp_path))
    with pytest.raises(ContractError, match="no intact artifact at s3://qwenops/nothing"):
        artifacts.local_copy("s3://qwenops/nothing", context)


def test_address_and_local_copy_lead_to_each_other(tmp_path):
    context = RunContext(store="", events="", cache=str(tmp_path))
    assert addresses.address_of(addresses.local_path("s3://b/x/y", context), context) == "s3://b/x/y"
    assert addresses.address_of(Path("/mnt/x"), context) == "/mnt/x"
    assert addresses.local_path("/mnt/x", context) == Path("/mnt/x")
