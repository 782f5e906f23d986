"""Addresses that nothing can read or write are refused when a recipe or a placement is read."""

import importlib.util
import json

import fsspec
import pytest

from qwenops.errors import RecipeError
from qwenops.recipe.addresses import EXTRAS
from qwenops.recipe.codec import decode
from qwenops.recipe.placement import Placement
from qwenops_pipelines.recipes import load_recipe

UNREADABLE = ("ftp://host/x", "hdfs://name/x", "S3://bucket/x", "bogus://x")


def source(path, kind="folder"):
    return "collect.sources=" + json.dumps([{"kind": kind, "name": "mine", "path": path}])


@pytest.mark.parametrize("place", [*UNREADABLE, "gs://bucket/x"])
def test_source_that_nothing_can_read_is_refused(place):
    if place.startswith("gs") and importlib.util.find_spec("gcsfs"):
        pytest.skip("this environment reads gs://")
    with pytest.raises(RecipeError, match="collect: a path, or an address of a kind that can be read"):
        load_recipe("smoke", [source(place)])


@pytest.mark.parametrize("scheme", sorted(EXTRAS))
def test_every_kind_that_is_taken_is_one_that_fsspec_reads(scheme):
    load_recipe("smoke", [source(f"{scheme}://place/x")])
    assert fsspec.get_filesystem_class(scheme)


@pytest.mark.parametrize("place", ["gs://bucket/x", "s3://bucket/x", "https://host/x"])
@pytest.mark.parametrize("field", ["pretrain.init_from", "tokenizer.base", "benchmarks.folder", "code"])
def test_weights_and_local_files_are_no_addresses(field, place):
    override = source(place, "code") if field == "code" else f"{field}={place}"
    with pytest.raises(RecipeError, match="only collect reads addresses"):
        load_recipe("smoke", [override])


@pytest.mark.parametrize("place", ["gs://bucket/x", "abfs://a/x", "file:///x", "s3://", "s3:///", "http://host/x"])
def test_store_of_another_kind_than_s3_is_refused(place):
    plain = {"name": "mine", "image": "i", "artifact_root": place, "cache_root": "/cache"}
    with pytest.raises(RecipeError, match="the one kind of store for artifacts"):
        decode(Placement, json.dumps(plain), where="placement")
    for good in ("s3://bucket/x", "/mnt/artifacts", ""):
        decode(Placement, json.dumps(plain | {"artifact_root": good}))


def test_cache_is_a_folder():
    plain = {"name": "mine", "image": "i", "artifact_root": "s3://bucket/x", "cache_root": "s3://bucket/cache"}
    with pytest.raises(RecipeError, match="a path"):
        decode(Placement, json.dumps(plain))
