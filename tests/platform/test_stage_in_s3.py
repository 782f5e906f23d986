"""A stage whose store is an S3 address behaves as with a folder: reused, verified, made again, resumed."""

import json

import boto3
import pytest
from tests.platform.servers import KEYS, s3_server
from tests.platform.test_stage import run_counter, toy  # noqa: F401

from qwenops.errors import ContractError, StageError


@pytest.fixture(scope="module")
def endpoint():
    with s3_server() as address:
        yield address


@pytest.fixture
def bucket(endpoint, toy, tmp_path, monkeypatch):  # noqa: F811
    for name, value in (KEYS | {"AWS_ENDPOINT_URL_S3": endpoint}).items():
        monkeypatch.setenv(name, value)
    name = f"store-{tmp_path.name[-12:].replace('_', '-').lower()}"
    client = boto3.resource("s3", endpoint_url=endpoint)
    made = client.create_bucket(Bucket=name)
    monkeypatch.setenv("QWENOPS_STORE", f"s3://{name}/stages")
    return made


def _new_machine(monkeypatch, tmp_path):
    monkeypatch.setenv("QWENOPS_CACHE", str(tmp_path / "another-machine"))


def test_artifact_is_reused_on_a_machine_that_never_saw_it(bucket, tmp_path, monkeypatch):
    first = run_counter(value=4)
    assert first.address.startswith(f"s3://{bucket.name}/stages/counter/")
    _new_machine(monkeypatch, tmp_path)
    second = run_counter(value=4)
    assert (second.reused, second.address, second.manifest) == (True, first.address, first.manifest)
    assert second.path != first.path
    assert (second.path / "value.txt").read_text() == "4"
    event = json.loads((tmp_path / "events" / "counter.json").read_text())
    assert event["artifact"] == first.address


def test_consumer_reads_an_address_and_records_it(bucket, tmp_path, monkeypatch):
    first = run_counter(value=4)
    _new_machine(monkeypatch, tmp_path)
    consumer = run_counter(node="consumer", inputs={"source": first.address}, value=1)
    assert (consumer.path / "value.txt").read_text() == "5"
    assert consumer.manifest.inputs == {"source": first.address}


@pytest.mark.parametrize("damage", ["change", "delete"])
def test_damaged_object_has_the_stage_made_again(bucket, tmp_path, monkeypatch, damage):
    first = run_counter(value=4)
    (key,) = [item.key for item in bucket.objects.all() if item.key.endswith("value.txt")]
    if damage == "change":
        bucket.put_object(Key=key, Body=b"9")
    else:
        bucket.Object(key).delete()
    _new_machine(monkeypatch, tmp_path)
    with pytest.raises(ContractError, match="no intact artifact"):
        run_counter(node="consumer", inputs={"source": first.address}, value=1)
    again = run_counter(value=4)
    assert not again.reused
    assert again.manifest.artifact_id != first.manifest.artifact_id
    assert run_counter(value=4).reused


def test_failed_stage_publishes_nothing_and_leaves_its_scratch(bucket):
    with pytest.raises(StageError):
        run_counter(fault="bug")
    assert [item.key for item in bucket.objects.all()] == []
    assert not run_counter(fault="").reused
