"""A placement is data: closed, described, given by name or as a file, and never part of a recipe's identity."""

import json

import pytest

from qwenops.errors import RecipeError
from qwenops.recipe.config import Config
from qwenops.recipe.placement import GcsFaultTolerance, Placement, RayCluster, RayGroup, Resources, Toleration, Volume
from qwenops_pipelines.cli import main
from qwenops_pipelines.placements import by_name


@pytest.mark.parametrize("kind", [Placement, RayCluster, RayGroup, Resources, Toleration, Volume, GcsFaultTolerance])
def test_every_field_is_described_by_a_sentence(kind: type[Config]):
    fields = kind.model_fields.items()
    assert [name for name, field in fields if not (field.description or "").endswith(".")] == []


@pytest.mark.parametrize("name", ["laptop", "h200_node", "kind"])
def test_printed_placement_can_be_edited_and_read_back(name, tmp_path, capsys):
    with pytest.raises(SystemExit, match="0"):
        main(["placement", name])
    path = tmp_path / "mine.json"
    path.write_text(capsys.readouterr().out)
    assert by_name(str(path)) == by_name(name)
    edited = json.loads(path.read_text()) | {"image": "local:1"}
    path.write_text(json.dumps(edited))
    for area in by_name(name).launchers:
        cluster = by_name(str(path)).cluster(area)
        assert cluster
        assert {pod.image for pod in (cluster.head, cluster.submitter, *cluster.workers.values())} == {"local:1"}


def test_file_needs_only_what_it_changes(tmp_path):
    path = tmp_path / "mine.json"
    path.write_text('{"name": "mine", "image": "local:1", "clusters": {"c": {}}, "launchers": {"data": "c"}}')
    cluster = by_name(str(path)).cluster("data")
    assert cluster and cluster.head.image == "local:1"
    assert by_name(str(path)).cluster("delivery") is None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"name": "x", "image": "i", "imagee": "j"}', "placement.imagee"),
        ('{"name": "x"}', "placement.image"),
        ('{"name": "x", "image": "i", "launchers": {"data": "big"}}', "big"),
        ('{"name": "x", "image": "i", "volumes": {"v": {"mount_path": "/a"}}}', "exactly one of claim and host_path"),
        (
            '{"name": "x", "image": "i", "clusters": {"c": {"active_deadline_seconds": 5}}}',
            "pre_running_deadline_seconds",
        ),
        (
            '{"name": "x", "image": "i", "clusters": {"c": {"workers": {"w": {"replicas": 3, "max_replicas": 2}}}}}',
            "min_replicas <= replicas <= max_replicas",
        ),
        (
            '{"name": "x", "image": "i", "clusters": {"c": {"auth_secret": "s"}}}',  # pragma: allowlist secret
            "auth is token",
        ),
        ('{"name": "x", "image": "i", "clusters": {"c": {"auth": "token", "ray_version": "2.51.2"}}}', "at least 2.52"),
        (
            '{"name": "x", "image": "i", "clusters": {"c": {"auth": "token", "submission_mode": "HTTPMode"}}}',
            "auth_secret is named in HTTPMode",
        ),
        ("not json", "placement"),
    ],
)
def test_wrong_file_is_refused_with_the_field(tmp_path, text, words):
    path = tmp_path / "mine.json"
    path.write_text(text)
    with pytest.raises(RecipeError, match=words):
        by_name(str(path))


def test_missing_file_and_unknown_name_are_refused():
    with pytest.raises(RecipeError, match="cannot read"):
        by_name("/nowhere/mine.json")
    with pytest.raises(RecipeError, match="unknown placement"):
        by_name("moon")


def test_bucket_needs_a_shared_volume_beside_it(tmp_path):
    path = tmp_path / "mine.json"
    path.write_text('{"name": "x", "image": "i", "artifact_root": "s3://b/team"}')
    with pytest.raises(RecipeError, match="cache_root on a shared volume"):
        by_name(str(path))
    path.write_text('{"name": "x", "image": "i", "artifact_root": "s3://b/team", "cache_root": "/mnt"}')
    assert by_name(str(path)).shared_root == "/mnt"
