"""The steps around the stages where the store is a bucket: the same answers as from folders, from any pod's cache."""

import json

import boto3
import pytest
from tests.dags.artifacts import BY_NAME, RECIPE, TEXT, publish
from tests.dags.test_steps import end
from tests.platform.servers import KEYS, s3_server

from qwenops.contracts.manifest import MANIFEST
from qwenops.errors import ContractError, RecipeError
from qwenops.platform.context import RunContext
from qwenops.platform.stage.slices import Reference, read_slice
from qwenops.platform.storage import addresses, object_store
from qwenops.recipe.codec import decode
from qwenops.recipe.schema import resolve
from qwenops_pipelines.dags.pipelines import PIPELINES
from qwenops_pipelines.steps.begin import begin
from qwenops_pipelines.steps.import_artifacts import find_artifacts

STORE = "s3://artifacts/team"


@pytest.fixture(scope="module")
def endpoint():
    with s3_server() as address:
        yield address


@pytest.fixture
def bucket(endpoint, store, monkeypatch):
    """An empty bucket as the store of run-1."""
    for name, value in (KEYS | {"AWS_ENDPOINT_URL_S3": endpoint, "QWENOPS_STORE": STORE}).items():
        monkeypatch.setenv(name, value)
    client = boto3.client("s3", endpoint_url=endpoint)
    client.create_bucket(Bucket="artifacts")
    yield client
    boto3.resource("s3", endpoint_url=endpoint).Bucket("artifacts").objects.delete()
    client.delete_bucket(Bucket="artifacts")


def upload(name, parents=None):
    """Publish an artifact of node `name` in the bucket; returns its local folder and its address."""
    context = RunContext.from_environment()
    folder = publish(
        addresses.local_path(STORE, context), name, parents, address=lambda path: addresses.address_of(path, context)
    )
    address = addresses.address_of(folder, context)
    assert object_store.publish(folder, address)
    return folder, address


def cache_keys():
    begun = begin(TEXT, "night", "full", "")
    return {name: decode(Reference, begun[name]).cache_key for name in BY_NAME}


def test_cache_keys_change_with_a_lost_object_and_another_bucket(bucket, monkeypatch):
    _, address = upload("collect")
    first = cache_keys()
    assert cache_keys() == first
    bucket.delete_object(Bucket="artifacts", Key=f"{address.removeprefix('s3://artifacts/')}/{MANIFEST}")
    lost = cache_keys()
    assert {name for name in first if lost[name] != first[name]} == {"collect"}
    monkeypatch.setenv("QWENOPS_STORE", f"{STORE}-b")
    assert not set(cache_keys().values()) & set(first.values())


def test_slices_and_the_recipe_itself_are_read_from_the_bucket(bucket):
    bucket.put_object(Bucket="artifacts", Key="mine.json", Body=TEXT.encode())
    begun, context = begin("s3://artifacts/mine.json", "night", "full", ""), RunContext.from_environment()
    for name, envelope in resolve(RECIPE).items():
        assert read_slice(BY_NAME[name].stage, begun[name], context) == envelope
    with pytest.raises(RecipeError, match="s3://artifacts/yours"):
        begin("s3://artifacts/yours.json", "night", "full", "")


def test_earlier_artifact_is_found_by_a_pod_with_an_empty_cache(bucket, monkeypatch, tmp_path):
    _, address = upload("tokenizer")
    monkeypatch.setenv("QWENOPS_CACHE", str(tmp_path / "empty"))
    context = RunContext.from_environment()
    assert find_artifacts(("tokenizer",), resolve(RECIPE), context, "") == {"tokenizer": address}
    assert (addresses.local_path(address, context) / "data.txt").is_file()
    bucket.delete_object(Bucket="artifacts", Key=f"{address.removeprefix('s3://artifacts/')}/{MANIFEST}")
    with pytest.raises(ContractError, match="no artifact of tokenizer"):
        find_artifacts(("tokenizer",), resolve(RECIPE), context, "")


def test_wholly_cached_run_is_recorded_with_addresses_and_can_be_started_from(bucket, monkeypatch, tmp_path):
    begin(TEXT, "night", "data", "")
    made, addresses = {}, {}
    for node in PIPELINES["data"].nodes:
        made[node.name], addresses[node.name] = upload(node.name, made)
    monkeypatch.setenv("QWENOPS_CACHE", str(tmp_path / "empty"))
    record, _ = end(tmp_path / "pod", "COMPLETE")
    assert record["status"] == "succeeded"
    assert {name: stage["outputs"]["output"]["path"] for name, stage in record["stages"].items()} == addresses
    assert json.loads((tmp_path / "empty" / "runs" / "run-1" / "run.json").read_text()) == record
    context = RunContext.from_environment()
    found = find_artifacts(("tokenizer", "tokens"), resolve(RECIPE), context, "night")
    assert found == {name: addresses[name] for name in ("tokenizer", "tokens")}
