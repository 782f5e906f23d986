"""What the chart's pods and accounts may do: as little as their work needs."""

import itertools
import json
import re
from collections import defaultdict

import pytest
import yaml
from tests.helm.chart import ROOT, VALUES, containers, of_kind, pod_specs, rules
from tests.helm.pod_security import violations
from tests.helm.rights import ACCOUNTS, ALLOWED, decides, is_allowed, questions

from qwenops.platform.kubernetes.client import RIGHTS

every_values = pytest.mark.parametrize("values", VALUES)
CRDS = next((p / "shared/data/kuberay_crds" for p in ROOT.parents if (p / "shared/data").is_dir()), None)


@every_values
def test_no_pod_runs_as_root(render, values):
    for name, _, spec in pod_specs(render(values)):
        assert spec["securityContext"]["runAsNonRoot"] is True, name
        assert spec["securityContext"]["runAsUser"] > 0, name
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, name
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(spec), name


@every_values
def test_containers_have_no_privilege_and_a_read_only_root(render, values):
    for name, container in containers(render(values)):
        context = container["securityContext"]
        assert context["allowPrivilegeEscalation"] is False, name
        assert context["readOnlyRootFilesystem"] is True, name
        assert context["capabilities"] == {"drop": ["ALL"]}, name


@every_values
def test_every_pod_is_admitted_to_a_restricted_namespace(render, values):
    assert [(name, fault) for name, _, spec in pod_specs(render(values)) for fault in violations(spec)] == []


@every_values
def test_containers_ask_for_resources_and_bound_their_memory(render, values):
    for name, container in containers(render(values)):
        assert {"cpu", "memory"} <= set(container["resources"]["requests"]), name
        assert "memory" in container["resources"]["limits"], name


@every_values
def test_containers_mount_a_writable_tmp(render, values):
    for name, _, spec in pod_specs(render(values)):
        volumes = {volume["name"]: volume for volume in spec["volumes"]}
        for container in spec["containers"]:
            mounted = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
            assert "emptyDir" in volumes[mounted["/tmp"]], name


def test_only_the_prerequisites_check_gets_a_kubernetes_token(render):
    tokens = {name: spec["automountServiceAccountToken"] for name, _, spec in pod_specs(render("gpu"))}
    assert [name for name, token in tokens.items() if token] == ["Pod/qwenops-test-doctor"]


def test_accounts_but_the_pipeline_steps_mount_no_token(render):
    mounted = {
        item["metadata"]["name"]: item["automountServiceAccountToken"] for item in of_kind(render(), "ServiceAccount")
    }
    assert [name for name, mount in mounted.items() if mount] == ["qwenops-pipeline"]


@every_values
def test_no_role_has_a_wildcard(render, values):
    for role, rule in rules(render(values)):
        for field in ("apiGroups", "resources", "verbs"):
            assert "*" not in rule[field], role


@every_values
def test_no_role_is_cluster_wide(render, values):
    assert of_kind(render(values), "ClusterRole", "ClusterRoleBinding") == []


@every_values
def test_secrets_are_read_one_by_one_by_name(render, values):
    for role, rule in rules(render(values)):
        if "secrets" in rule["resources"]:
            assert rule["resourceNames"] == ["mlpipeline-minio-artifact"], role
            assert rule["verbs"] == ["get"], role


@every_values
@pytest.mark.parametrize("account", ACCOUNTS)
def test_accounts_may_do_what_the_table_says_and_nothing_else(render, values, account):
    objects = render(values)
    wrong = [
        asked
        for asked in questions()
        if decides(objects, f"qwenops-{account}", "research", asked) is not is_allowed(account, asked)
    ]
    assert wrong == []


def test_table_holds_every_rule_of_the_roles(render):
    """A rule about a resource that no question asks for would go unseen above."""
    accounts = {
        item["roleRef"]["name"]: subject["name"].removeprefix("qwenops-")
        for item in of_kind(render(), "RoleBinding")
        for subject in item["subjects"]
    }
    granted = defaultdict(set)
    for role, rule in rules(render()):
        for group, resource in itertools.product(rule["apiGroups"], rule["resources"]):
            for name in rule.get("resourceNames", [""]):
                granted[accounts[role], group, resource, name] |= set(rule["verbs"])
    assert granted == ALLOWED


def test_launcher_needs_no_more_than_its_step_may():
    for group, resource, verbs in RIGHTS:
        assert set(verbs) <= ALLOWED["pipeline", group, resource, ""]


def test_queues_are_readable_only_where_there_are_queues(render):
    groups = {group for _, rule in rules(render("gpu")) for group in rule["apiGroups"]}
    assert "kueue.x-k8s.io" in groups
    assert "kueue.x-k8s.io" not in {group for _, rule in rules(render()) for group in rule["apiGroups"]}


def test_ray_and_mlflow_accounts_have_no_rights(render):
    bound = {subject["name"] for item in of_kind(render(), "RoleBinding") for subject in item["subjects"]}
    assert bound == {"qwenops-pipeline", "qwenops-trigger"}


def test_bindings_name_roles_of_the_release_and_accounts_of_its_namespace(render):
    objects = render("gpu", namespace="team-a")
    roles = {item["metadata"]["name"] for item in of_kind(objects, "Role")}
    for binding in of_kind(objects, "RoleBinding"):
        assert binding["roleRef"]["kind"] == "Role"
        assert binding["roleRef"]["name"] in roles
        assert {subject["namespace"] for subject in binding["subjects"]} == {"team-a"}


@pytest.mark.skipif(CRDS is None, reason="KubeRay's CRDs are not on this machine")
def test_ray_rights_name_resources_that_kuberay_has(render):
    plurals = {
        yaml.load(path.read_text(encoding="utf-8"), yaml.CSafeLoader)["spec"]["names"]["plural"]
        for path in CRDS.glob("*.yaml")
    }
    named = {name for _, rule in rules(render()) if "ray.io" in rule["apiGroups"] for name in rule["resources"]}
    assert named
    assert named <= plurals


@every_values
def test_secret_values_stand_only_in_the_secrets_that_the_chart_makes(render, values):
    objects = render(values)
    made = {key: item for item in of_kind(objects, "Secret") for key in item["stringData"].values()}
    assert all(re.search(r"[A-Za-z0-9]{32}", value) for value in made)
    rest = json.dumps([item for item in objects if item["kind"] != "Secret"])
    assert [value for value in made if value in rest] == []
    for name, container in containers(objects):
        for variable in container.get("env", []):
            secret = re.search("PASSWORD|SECRET|ACCESS_KEY|STORE_URI", variable["name"])
            assert not (secret and "value" in variable), f"{name} {variable['name']}"


def test_external_services_leave_no_secret_in_the_manifests(render):
    assert of_kind(render("external"), "Secret") == []
    assert of_kind(render("gpu"), "Secret") == []


def test_made_secrets_are_never_the_same_twice(chart):
    done = [chart.run(*chart._command("default", "research", {})).stdout for _ in range(2)]
    passwords = [re.findall(r"^  password: \"(\w{32})\"$", text, re.MULTILINE) for text in done]
    assert len(passwords[0]) == 1
    assert passwords[0] != passwords[1]
