"""Every values file passes helm's own linter and renders objects that Kubernetes' schemas accept."""

import re

import pytest
import yaml
from tests.helm.chart import CHART, ROOT, VALUES, names, of_kind

BOUNDS = yaml.safe_load((ROOT / "infra" / "versions.yaml").read_text(encoding="utf-8"))["kubernetes"]
# Kinds of other projects, which only a cluster that has them can check.
FOREIGN = ("kueue.x-k8s.io", "monitoring.coreos.com")


def minors() -> list[str]:
    """Supported minors of Kubernetes."""
    first, last = (int(BOUNDS[bound].split(".")[1]) for bound in ("oldest", "newest"))
    return [f"1.{minor}" for minor in range(first, last + 1)]


@pytest.mark.parametrize("values", VALUES)
def test_linter_has_nothing_to_say(chart, values):
    done = chart.run("lint", "--strict", str(CHART), "--values", str(VALUES[values]))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "[WARNING]" not in done.stdout
    assert "[ERROR]" not in done.stdout


@pytest.mark.parametrize("minor", minors())
@pytest.mark.parametrize("values", VALUES)
def test_every_object_is_valid_in_every_supported_kubernetes(render, schemas, values, minor):
    core = [item for item in render(values) if not item["apiVersion"].startswith(FOREIGN)]
    assert len(core) > 10
    assert [error for item in core for error in schemas.errors(item, minor)] == []


def test_schemas_notice_an_unknown_field(render, schemas):
    (budget, *_) = of_kind(render(), "PodDisruptionBudget")
    wrong = {**budget, "spec": {**budget["spec"], "maxAvailable": 1}}
    assert "maxAvailable" in schemas.errors(wrong, BOUNDS["newest"])[0]


def test_schemas_cover_the_supported_range(schemas):
    assert set(minors()) <= set(schemas.minors())


@pytest.mark.parametrize("values", VALUES)
def test_object_names_are_unique_and_short_enough(render, values):
    objects = render(values)
    assert len(names(objects)) == len(objects)
    assert [item for item in objects if len(item["metadata"]["name"]) > 63] == []


def test_a_long_release_name_still_gives_valid_names(chart):
    release = "a" * 53
    done = chart.run("template", release, str(CHART))
    assert done.returncode == 0, done.stderr
    assert all(len(name) <= 63 for name in re.findall(r"^  name: (\S+)$", done.stdout, re.MULTILINE))


@pytest.mark.parametrize("values", VALUES)
def test_nothing_is_a_load_balancer_or_names_a_node_port(render, values):
    assert {service["spec"]["type"] for service in of_kind(render(values), "Service")} <= {"ClusterIP"}


@pytest.mark.parametrize("values", VALUES)
def test_every_object_carries_the_recommended_labels(render, values):
    wanted = {"name", "instance", "version", "component", "part-of", "managed-by"}
    for item in render(values):
        found = {key.removeprefix("app.kubernetes.io/") for key in item["metadata"]["labels"]}
        assert wanted <= found, item["metadata"]["name"]


def test_selectors_hold_no_version(render):
    for item in of_kind(render(), "Deployment", "StatefulSet"):
        assert not {"app.kubernetes.io/version", "helm.sh/chart"} & set(item["spec"]["selector"]["matchLabels"])


@pytest.mark.parametrize("values", VALUES)
def test_cluster_wide_objects_appear_only_when_asked_for(render, values):
    cluster_wide = {"ClusterRole", "ClusterRoleBinding", "RuntimeClass", "ClusterQueue", "ResourceFlavor", "Namespace"}
    found = {item["kind"] for item in render(values)} & cluster_wide
    assert found == ({"RuntimeClass", "ClusterQueue", "ResourceFlavor"} if values == "gpu" else set())
