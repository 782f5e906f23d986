"""The chart's own accounts and roles in a namespace, and tokens of its accounts."""

from kubernetes import client
from kubernetes.client.rest import ApiException
from tests.helm.chart import Chart, Object, of_kind

RELEASE = "qwenops"
_TOKEN_SECONDS = 600


def account_name(account: str) -> str:
    """Name of the chart's service account for pipeline steps, Ray pods and so on."""
    return f"{RELEASE}-{account}"


def accounts_of(chart: Chart, namespace: str) -> list[Object]:
    """The chart's objects for `namespace`, which may be Kubeflow's own: without rules for the pods of others there."""
    return chart.render("minimal", namespace, networkPolicy__scope="chart")


def install_accounts(api: client.ApiClient, chart: Chart, namespace: str, without: str = "") -> list[Object]:
    """Apply the chart's rendered service accounts, roles and bindings.

    Args:
        api: An administrator's client.
        chart: The chart.
        namespace: Where to.
        without: A resource whose rules are left out.

    Returns:
        What was made; an object that exists already (the chart is installed there) is left alone.
    """
    core, rbac = client.CoreV1Api(api), client.RbacAuthorizationV1Api(api)
    makers = {
        "ServiceAccount": core.create_namespaced_service_account,
        "Role": rbac.create_namespaced_role,
        "RoleBinding": rbac.create_namespaced_role_binding,
    }
    made = []
    for item in of_kind(accounts_of(chart, namespace), *makers):
        if item["kind"] == "Role":
            item = item | {"rules": [rule for rule in item["rules"] if without not in rule["resources"]]}
        try:
            makers[item["kind"]](namespace, item)
        except ApiException as error:
            if error.status != 409:
                raise
        else:
            made.append(item)
    return made


def remove_accounts(api: client.ApiClient, made: list[Object], namespace: str) -> None:
    """Delete what `install_accounts` made, in a namespace that stays."""
    core, rbac = client.CoreV1Api(api), client.RbacAuthorizationV1Api(api)
    removers = {
        "ServiceAccount": core.delete_namespaced_service_account,
        "Role": rbac.delete_namespaced_role,
        "RoleBinding": rbac.delete_namespaced_role_binding,
    }
    for item in made:
        removers[item["kind"]](item["metadata"]["name"], namespace)


def token(api: client.ApiClient, namespace: str, account: str) -> str:
    """A short-lived token of a service account, by the TokenRequest API."""
    asked = {"spec": {"expirationSeconds": _TOKEN_SECONDS, "audiences": []}}
    return client.CoreV1Api(api).create_namespaced_service_account_token(account, namespace, asked).status.token
