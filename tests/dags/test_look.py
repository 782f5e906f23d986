"""`qwenops look`: a folder that others filled, seen as a run would read it, before anything runs."""

import pytest
from tests.dags.conftest import qwenops
from tests.dags.doors.foreign_files import write_all

from qwenops.errors import RecipeError
from qwenops_pipelines.look import find_source, look
from qwenops_pipelines.recipes import load_recipe

RECIPE = load_recipe("smoke", [])


@pytest.fixture(scope="module")
def foreign(tmp_path_factory):
    folder = tmp_path_factory.mktemp("foreign")
    return folder, write_all(folder)


def test_everything_in_a_folder_is_shown_or_dropped_by_its_reason(foreign):
    folder, expected = foreign
    found = look(find_source(str(folder), RECIPE.collect), RECIPE.collect, RECIPE.ingest, 10_000, 10_000)
    # The source has another name here, which stands in the addresses.
    kept = {url.replace("folder://own/", "folder://mine/") for url in expected.kept}
    assert {row["url"] for row in found.shown} == kept
    assert found.documents == len(kept) and found.is_whole
    assert found.pages == found.documents + sum(found.dropped.values())
    assert set(found.dropped) == {*expected.dropped.values(), "undecodable"}


def test_look_ends_at_its_pages_and_says_so(foreign):
    folder, _ = foreign
    found = look(find_source(str(folder), RECIPE.collect), RECIPE.collect, RECIPE.ingest, 2, 9)
    assert (found.pages, len(found.shown), found.is_whole) == (9, 2, False)


def test_command_shows_documents_and_the_account_and_no_traceback(foreign):
    folder, _ = foreign
    done = qwenops("look", folder, "--rows", "3", COLUMNS="80")
    assert done.returncode == 0, done.stderr
    assert "folder source: all " in done.stdout and " dropped, unsupported_pdf: such as " in done.stdout
    assert max(len(line) for line in done.stdout.splitlines() if line.startswith("   ")) <= 80


@pytest.mark.parametrize(
    ("text", "kind", "place"),
    [
        ("s3://bucket/pages", "folder", "s3://bucket/pages"),
        ("owner/name@v2", "hub", "owner/name"),
        ('{"kind": "code", "path": "trees"}', "code", "trees"),
    ],
)
def test_address_hub_id_and_json_are_told_apart(text, kind, place):
    source = find_source(text, RECIPE.collect)
    assert (source.kind, source.dataset if kind == "hub" else source.path) == (kind, place)


def test_source_of_the_recipe_is_found_by_its_name():
    for source in RECIPE.collect.sources:
        assert find_source(source.name, RECIPE.collect) is source


@pytest.mark.parametrize("text", ["nowhere", "", "/no/such/folder", '{"kind": "moon"}', '{"kind": "folder"}'])
def test_what_is_no_source_is_one_message(text):
    with pytest.raises(RecipeError):
        find_source(text, RECIPE.collect)
