"""What the values ask for is what the rendered objects say."""

import pytest
import yaml
from mlflow.server.security_utils import is_allowed_host_header
from tests.helm.chart import CHART, VALUES, containers, names, of_kind, pod_specs
from tests.integration.cluster.rights import accounts_of

DEFAULTS = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))
MLFLOW = "Deployment/qwenops-mlflow/mlflow"


def test_a_digest_wins_over_a_tag(render):
    digest = "sha256:" + "0" * 64
    images = dict(containers(render(images__server__digest=digest, images__server__tag="x")))
    assert images[MLFLOW]["image"] == f"qwenops/server@{digest}"


@pytest.mark.parametrize("values", VALUES)
def test_every_image_comes_from_the_values(render, values):
    repositories = {image["repository"] for image in DEFAULTS["images"].values()}
    for name, container in containers(render(values)):
        assert container["image"].partition("@")[0].rpartition(":")[0] in repositories, name
        assert container["imagePullPolicy"], name


def test_scheduling_and_volumes_reach_every_pod(render):
    placed = render(
        "gpu",
        pods__nodeSelector={"pool": "system"},
        pods__tolerations=[{"key": "system", "operator": "Exists"}],
        pods__priorityClassName="high",
        pods__extraVolumes=[{"name": "ca", "configMap": {"name": "ca"}}],
        pods__extraVolumeMounts=[{"name": "ca", "mountPath": "/etc/ca"}],
        imagePullSecrets=["registry"],
    )
    for name, _, spec in pod_specs(placed):
        assert spec["nodeSelector"] == {"pool": "system"}, name
        assert spec["tolerations"] == [{"key": "system", "operator": "Exists"}], name
        assert spec["priorityClassName"] == "high", name
        assert spec["imagePullSecrets"] == [{"name": "registry"}], name
        assert {"name": "ca", "configMap": {"name": "ca"}} in spec["volumes"], name
    for name, container in containers(placed):
        assert {"name": "ca", "mountPath": "/etc/ca"} in container["volumeMounts"], name


@pytest.mark.parametrize(
    ("host", "answered"),
    [
        ("qwenops-mlflow:5000", True),
        ("qwenops-mlflow.team-a:5000", True),
        ("qwenops-mlflow.team-a.svc.cluster.local:5000", True),
        ("localhost:5000", True),
        ("mlflow.example.org", True),
        ("qwenops-mlflow.team-b:5000", False),
        ("evil.example.net", False),
    ],
)
def test_mlflow_answers_to_its_own_names_alone(render, host, answered):
    objects = render(namespace="team-a", mlflow__allowedHosts=["mlflow.example.org"])
    environment = {item["name"]: item.get("value") for item in dict(containers(objects))[MLFLOW]["env"]}
    allowed = environment["MLFLOW_SERVER_ALLOWED_HOSTS"].split(",")
    assert is_allowed_host_header(allowed, host) is answered


def test_artifacts_pass_through_the_server_or_straight_to_the_bucket(render):
    proxied = dict(containers(render()))[MLFLOW]["args"]
    direct = dict(containers(render(mlflow__artifacts__serve=False)))[MLFLOW]["args"]
    assert "--artifacts-destination=s3://qwenops/mlflow" in proxied
    assert "--default-artifact-root=s3://qwenops/mlflow" in direct


def test_external_services_are_named_by_secret_and_address(render):
    environment = {item["name"]: item for item in dict(containers(render("external")))[MLFLOW]["env"]}
    uri = environment["MLFLOW_BACKEND_STORE_URI"]["valueFrom"]["secretKeyRef"]
    assert uri == {"name": "mlflow-database", "key": "uri"}
    assert environment["MLFLOW_S3_ENDPOINT_URL"]["value"] == "https://s3.example.org"
    assert environment["AWS_ACCESS_KEY_ID"]["valueFrom"]["secretKeyRef"]["name"] == "bucket-keys"


def test_a_cloud_identity_needs_no_keys(render):
    assert not {item["name"] for item in dict(containers(render("gpu")))[MLFLOW]["env"]} & {
        "AWS_ACCESS_KEY_ID",
        "MLFLOW_S3_ENDPOINT_URL",
    }


def test_data_of_the_bundled_services_lives_in_the_pod_where_no_size_is_given(render):
    sets = of_kind(render(postgresql__size="", objectStore__server__size=""), "StatefulSet")
    for item in sets:
        assert "volumeClaimTemplates" not in item["spec"]
        assert {"name": "data", "emptyDir": {}} in item["spec"]["template"]["spec"]["volumes"]


def test_quota_is_listed_by_flavor_with_the_same_resources(render):
    (queue,) = of_kind(render("gpu"), "ClusterQueue")
    (group,) = queue["spec"]["resourceGroups"]
    assert queue["spec"]["cohortName"] == "research"
    assert queue["spec"]["namespaceSelector"] == {"matchLabels": {"kubernetes.io/metadata.name": "research"}}
    for flavor in group["flavors"]:
        assert sorted(item["name"] for item in flavor["resources"]) == group["coveredResources"]
    (queue,) = of_kind(render("gpu", kueue__apiVersion="kueue.x-k8s.io/v1beta1"), "ClusterQueue")
    assert queue["spec"]["cohort"] == "research"


def test_flavors_with_different_resources_are_refused(chart):
    queue = {"cohort": "", "flavors": {"a": {"cpu": "1"}, "b": {"cpu": "1", "memory": "1Gi"}}}
    refusal = chart.refusal(kueue__enabled=True, kueue__clusterObjects=True, kueue__clusterQueues={"mine": queue})
    assert "kueue.clusterQueues.mine.flavors" in refusal


def test_trigger_runs_the_command_line_once_at_a_time(render):
    (trigger,) = of_kind(render("gpu"), "CronJob")
    assert trigger["spec"]["concurrencyPolicy"] == "Forbid"
    container = dict(containers([trigger]))["CronJob/qwenops-trigger/trigger"]
    assert container["command"] == ["qwenops"]
    assert container["args"][0] == "submit"
    mounts = {mount["mountPath"] for mount in container["volumeMounts"]}
    assert {"/var/run/secrets/kubeflow/pipelines", "/etc/qwenops/pipelines"} <= mounts


@pytest.mark.parametrize("values", ["gpu", "kind"])
def test_submitted_runs_get_the_account_that_may_own_rayjobs(render, values):
    objects = render(values)
    shown = {name: item for name, item in containers(objects) if item.get("args", [""])[0] == "submit"}
    assert shown
    accounts = {item["metadata"]["name"] for item in of_kind(objects, "ServiceAccount")}
    for container in shown.values():
        assert "--service-account=$(PIPELINE_ACCOUNT)" in container["args"]
        given = {item["name"]: item.get("value") for item in container["env"]}
        assert given["PIPELINE_ACCOUNT"] == "qwenops-pipeline"
        assert given["PIPELINE_ACCOUNT"] in accounts


def test_single_user_kubeflow_gets_no_token(render):
    (pod,) = (item for item in of_kind(render("kind"), "Pod") if item["metadata"]["name"].endswith("smoke"))
    assert "kubeflow-token" not in {volume["name"] for volume in pod["spec"]["volumes"]}
    assert "KF_PIPELINES_SA_TOKEN_PATH" not in {item["name"] for item in pod["spec"]["containers"][0]["env"]}


def test_helm_tests_run_in_order_and_leave_their_logs(render):
    pods = of_kind(render("kind"), "Pod")
    weights = {item["metadata"]["name"]: item["metadata"]["annotations"]["helm.sh/hook-weight"] for item in pods}
    assert weights == {"qwenops-test-doctor": "0", "qwenops-test-smoke": "1"}
    assert {item["metadata"]["annotations"]["helm.sh/hook-delete-policy"] for item in pods} == {"before-hook-creation"}


@pytest.mark.parametrize("values", VALUES)
def test_every_mount_of_a_pod_has_its_volume(render, values):
    """A server refuses a pod with a mount and no volume, `volumeMounts[0].name: Not found`."""
    for name, _, spec in pod_specs(render(values)):
        there = {volume["name"] for volume in spec.get("volumes", [])}
        for container in [*spec.get("initContainers", []), *spec["containers"]]:
            assert {mount["name"] for mount in container.get("volumeMounts", [])} <= there, name


def test_accounts_are_the_same_in_a_namespace_that_is_kubeflows_too(chart):
    """What the cluster suite installs beside a real Kubeflow, where the chart refuses rules for everybody's pods."""
    kinds = ("ServiceAccount", "Role", "RoleBinding")
    own, shared = (names(of_kind(accounts_of(chart, place), *kinds)) for place in ("research", "kubeflow"))
    assert own == shared
    assert "ServiceAccount/qwenops-pipeline" in shared
