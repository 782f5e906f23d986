"""Traffic is denied but for what the parts need of each other; labels are matched as Kubernetes matches them."""

import pytest
from tests.helm.chart import VALUES, Object, of_kind, pod_specs

from qwenops.recipe.pods import PART_OF

STRANGERS = {
    "back end": {"app": "ml-pipeline"},
    "job": {"batch.kubernetes.io/job-name": "cache-deployer"},
    "workflow": {"workflows.argoproj.io/workflow": "theirs-x7k", "pipeline/runid": "2"},
    "ray": {"ray.io/node-type": "head", "ray.io/cluster": "theirs", "app.kubernetes.io/part-of": "theirs"},
}
STEP = {"workflows.argoproj.io/workflow": "full-x7k", "pipeline/runid": "1"} | PART_OF
RAY_HEAD = {"ray.io/node-type": "head", "ray.io/cluster": "pretrain-1"} | PART_OF
SUBMITTER = {"batch.kubernetes.io/job-name": "pretrain-1"} | PART_OF
OPERATOR_NAMESPACE = {"kubernetes.io/metadata.name": "kuberay-operator"}


def matches(selector: Object, labels: dict[str, str]) -> bool:
    """Whether a label selector selects labels."""
    operators = {
        "In": lambda item: labels.get(item["key"]) in item["values"],
        "NotIn": lambda item: labels.get(item["key"]) not in item["values"],
        "Exists": lambda item: item["key"] in labels,
    }
    exact = all(labels.get(key) == value for key, value in selector.get("matchLabels", {}).items())
    return exact and all(operators[item["operator"]](item) for item in selector.get("matchExpressions", []))


def selecting(objects: list[Object], labels: dict[str, str]) -> list[Object]:
    """Policies that select a pod."""
    return [item for item in of_kind(objects, "NetworkPolicy") if matches(item["spec"]["podSelector"], labels)]


def may_reach(objects: list[Object], source: dict[str, str], target: dict[str, str], port: int) -> bool:
    """Whether one pod of the namespace may open a port of another."""

    def allowed(labels: dict[str, str], peer: dict[str, str], direction: str, side: str) -> bool:
        rules = [
            rule for item in selecting(objects, labels) for rule in item["spec"].get(direction, []) if side in rule
        ]
        return any(
            any("podSelector" in found and matches(found["podSelector"], peer) for found in rule[side])
            and ("ports" not in rule or port in [entry["port"] for entry in rule["ports"]])
            for rule in rules
        )

    return allowed(source, target, "egress", "to") and allowed(target, source, "ingress", "from")


def labels_of(objects: list[Object], component: str) -> dict[str, str]:
    """Labels of the pod of a component."""
    (found, *_) = (
        metadata["labels"]
        for _, metadata, _ in pod_specs(objects)
        if metadata["labels"]["app.kubernetes.io/component"] == component
    )
    return found


def egress_without_peer(objects: list[Object], labels: dict[str, str]) -> set[int]:
    """Ports on which a pod may reach any address."""
    found = [rule for item in selecting(objects, labels) for rule in item["spec"].get("egress", []) if "to" not in rule]
    return {entry["port"] for rule in found for entry in rule["ports"]}


@pytest.mark.parametrize("values", VALUES)
def test_default_is_to_deny_both_ways(render, values):
    deny = [item for item in of_kind(render(values), "NetworkPolicy") if item["metadata"]["name"] == "qwenops-deny-all"]
    (spec,) = (item["spec"] for item in deny)
    assert spec["policyTypes"] == ["Ingress", "Egress"]
    assert not {"ingress", "egress"} & set(spec)


def test_denial_covers_the_whole_namespace_by_default(render):
    assert "qwenops-deny-all" in [item["metadata"]["name"] for item in selecting(render(), {"any": "pod"})]


@pytest.mark.parametrize("stranger", STRANGERS)
def test_chart_scope_leaves_pods_of_others_alone(render, stranger):
    objects = render("kind")
    assert selecting(objects, STRANGERS[stranger]) == []
    rules = [rule for item in of_kind(objects, "NetworkPolicy") for rule in item["spec"].get("ingress", [])]
    peers = [peer["podSelector"] for rule in rules for peer in rule["from"] if "podSelector" in peer]
    assert peers and not any(matches(peer, STRANGERS[stranger]) for peer in peers)


def test_budget_holds_no_head_of_others(render):
    (budget,) = (b for b in of_kind(render("gpu"), "PodDisruptionBudget") if "ray-heads" in b["metadata"]["name"])
    selector = budget["spec"]["selector"]
    assert (matches(selector, RAY_HEAD), matches(selector, STRANGERS["ray"])) == (True, False)


@pytest.mark.parametrize("labels", [STEP, RAY_HEAD, SUBMITTER], ids=["step", "ray", "submitter"])
def test_pods_of_a_run_look_up_names(render, labels):
    peers = [
        (peer["namespaceSelector"], rule["ports"][0])
        for item in selecting(render(), labels)
        for rule in item["spec"].get("egress", [])
        for peer in rule.get("to", [])
        if "namespaceSelector" in peer and "ports" in rule
    ]
    system = {"kubernetes.io/metadata.name": "kube-system"}
    assert [port for selector, port in peers if matches(selector, system)] == [{"port": 53, "protocol": "UDP"}]


@pytest.mark.parametrize("values", ["default", "kind", "gpu"])
@pytest.mark.parametrize("labels", [STEP, RAY_HEAD], ids=["step", "ray"])
def test_steps_and_ray_pods_are_denied_both_ways_in_every_scope(render, values, labels):
    kinds = {kind for item in selecting(render(values), labels) for kind in item["spec"]["policyTypes"]}
    assert kinds == {"Ingress", "Egress"}


@pytest.mark.parametrize(
    ("source", "target", "port", "open"),
    [
        ("step", "mlflow", 5000, True),
        ("step", "object-store", 8333, True),
        ("step", "ray", 8265, True),
        ("ray", "ray", 10002, True),
        ("ray", "mlflow", 5000, True),
        ("ray", "object-store", 8333, True),
        ("submitter", "ray", 8265, True),
        ("mlflow", "postgresql", 5432, True),
        ("mlflow", "object-store", 8333, True),
        ("test", "mlflow", 5000, True),
        ("step", "postgresql", 5432, False),
        ("ray", "postgresql", 5432, False),
        ("ray", "step", 9464, False),
        ("submitter", "mlflow", 5000, False),
        ("submitter", "ray", 6379, False),
        ("mlflow", "ray", 8265, False),
        ("object-store", "mlflow", 5000, False),
        ("stranger", "mlflow", 5000, False),
        ("stranger", "ray", 8265, False),
    ],
)
def test_pods_reach_what_their_work_needs(render, source, target, port, open):
    objects = render()
    fixed = {"step": STEP, "ray": RAY_HEAD, "submitter": SUBMITTER, "stranger": {"app": "other"}}
    ends = [fixed.get(name) or labels_of(objects, name) for name in (source, target)]
    assert may_reach(objects, *ends, port) is open


def test_generated_code_in_ray_pods_reaches_no_outside_address_by_default(render):
    assert egress_without_peer(render(), RAY_HEAD) == set()


def test_steps_reach_the_kubernetes_api_at_the_addresses_given(render):
    assert egress_without_peer(render(), STEP) == {443, 6443}
    named = render(networkPolicy__apiServer__cidrs=["10.0.0.1/32"])
    assert egress_without_peer(named, STEP) == set()


def test_downloads_are_opened_only_when_asked_for(render):
    opened = render(networkPolicy__downloads__enabled=True, networkPolicy__apiServer__cidrs=["10.0.0.1/32"])
    assert egress_without_peer(opened, STEP) == {80, 443}


def test_ray_pods_reach_the_kubernetes_api_only_with_a_token(render):
    assert egress_without_peer(render(serviceAccounts__ray__automountToken=True), RAY_HEAD) == {443, 6443}


def test_operator_reaches_the_ray_dashboard(render):
    rules = [rule for item in selecting(render(), RAY_HEAD) for rule in item["spec"].get("ingress", [])]
    peers = [
        (peer["namespaceSelector"], rule["ports"])
        for rule in rules
        for peer in rule["from"]
        if "namespaceSelector" in peer
    ]
    assert [ports for selector, ports in peers if matches(selector, OPERATOR_NAMESPACE)] == [
        [{"port": 8265, "protocol": "TCP"}]
    ]


def test_metrics_are_open_to_the_monitoring_namespace_alone(render):
    objects = render(networkPolicy__monitoringNamespaces=["monitoring"])
    rules = [rule for item in selecting(objects, STEP) for rule in item["spec"].get("ingress", [])]
    assert [[entry["port"] for entry in rule["ports"]] for rule in rules] == [[8080, 9464]]
    assert [rule for item in selecting(render(), STEP) for rule in item["spec"].get("ingress", [])] == []


def test_namespace_wide_denial_is_refused_where_kubeflow_runs(chart):
    done = chart.run(*chart._command("default", "kubeflow", {}))
    assert done.returncode != 0
    assert "networkPolicy.scope" in done.stderr


def test_no_policy_is_made_when_they_are_off(render):
    assert of_kind(render(networkPolicy__enabled=False), "NetworkPolicy") == []
