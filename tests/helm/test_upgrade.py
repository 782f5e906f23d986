"""An upgrade keeps what the first installation generated.

Helm looks secrets up in the cluster, so the real helm is pointed at a small server that speaks the Kubernetes API:
version, discovery, one namespace's secrets. Nothing of the chart or of helm is replaced.
"""

import base64
import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
import yaml
from tests.helm.chart import CHART, Object, of_kind
from tests.platform.servers import serve

NAMESPACE = "research"
SECRETS = f"/api/v1/namespaces/{NAMESPACE}/secrets/"


def discovery(objects: list[Object]) -> dict[str, Object]:
    """Answers of an API server that has the kinds of these objects."""
    kinds = sorted({(item["apiVersion"], item["kind"]) for item in objects})
    answers: dict[str, Object] = {
        "/version": {"major": "1", "minor": "34", "gitVersion": "v1.34.0"},
        "/api": {"kind": "APIVersions", "versions": ["v1"]},
    }
    groups = []
    for version in sorted({version for version, _ in kinds}):
        resources = [
            {"name": plural(kind), "singularName": kind.lower(), "namespaced": True, "kind": kind, "verbs": ["get"]}
            for found, kind in kinds
            if found == version
        ]
        path = f"/apis/{version}" if "/" in version else f"/api/{version}"
        answers[path] = {"kind": "APIResourceList", "groupVersion": version, "resources": resources}
        if "/" in version:
            served = {"groupVersion": version, "version": version.partition("/")[2]}
            groups.append({"name": version.partition("/")[0], "versions": [served], "preferredVersion": served})
    return answers | {"/apis": {"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}}


def plural(kind: str) -> str:
    """Resource name of a kind."""
    return f"{kind.lower().removesuffix('y')}ies" if kind.endswith("cy") else f"{kind.lower()}s"


class Api(BaseHTTPRequestHandler):
    """Answers as a Kubernetes API server that holds the secrets in `stored`."""

    stored: dict[str, Object] = {}  # noqa: RUF012 - set for each server.
    answers: dict[str, Object] = {}  # noqa: RUF012 - set for each server.

    def do_GET(self):
        path = self.path.partition("?")[0]
        name = path.removeprefix(SECRETS)
        found = self.answers.get(path) or (path.startswith(SECRETS) and self.stored.get(name))
        missing = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "NotFound", "code": 404}
        body = json.dumps(found or missing).encode()
        self.send_response(200 if found else 404)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture
def cluster(tmp_path: Path, render) -> Iterator[tuple[Path, dict[str, Object]]]:
    """A kubeconfig, and the secrets of the cluster it names."""
    stored: dict[str, Object] = {}
    handler = type("Cluster", (Api,), {"stored": stored, "answers": discovery(render())})
    with serve(handler) as address:
        kubeconfig = tmp_path / "kubeconfig"
        kubeconfig.write_text(yaml.safe_dump(_config(address)), encoding="utf-8")
        yield kubeconfig, stored


def _config(address: str) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "c", "cluster": {"server": address}}],
        "users": [{"name": "u", "user": {}}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u", "namespace": NAMESPACE}}],
        "current-context": "c",
    }


def secrets_rendered(chart, kubeconfig: Path) -> dict[str, dict[str, str]]:
    """Secrets as helm renders them for the cluster."""
    done = chart.run(
        *("template", "qwenops", str(CHART), "--namespace", NAMESPACE, "--kubeconfig", str(kubeconfig)),
        *("--dry-run=server", "--is-upgrade", "--disable-openapi-validation"),
    )
    assert done.returncode == 0, done.stderr
    objects = [item for item in yaml.load_all(done.stdout, yaml.CSafeLoader) if item]
    return {item["metadata"]["name"]: item["stringData"] for item in of_kind(objects, "Secret")}


def keep(stored: dict[str, Object], secrets: dict[str, dict[str, str]]) -> None:
    """Store secrets as the API server does."""
    for name, values in secrets.items():
        data = {key: base64.b64encode(value.encode()).decode() for key, value in values.items()}
        metadata = {"name": name, "namespace": NAMESPACE}
        stored[name] = {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "data": data}


def test_upgrade_keeps_generated_secrets(chart, cluster):
    kubeconfig, stored = cluster
    first = secrets_rendered(chart, kubeconfig)
    keep(stored, first)
    assert set(first) == {"qwenops-postgresql", "qwenops-object-store"}
    assert secrets_rendered(chart, kubeconfig) == first


def test_upgrade_makes_anew_only_the_secret_that_is_gone(chart, cluster):
    kubeconfig, stored = cluster
    first = secrets_rendered(chart, kubeconfig)
    keep(stored, first)
    del stored["qwenops-postgresql"]
    again = secrets_rendered(chart, kubeconfig)
    assert again["qwenops-object-store"] == first["qwenops-object-store"]
    assert again["qwenops-postgresql"]["password"] != first["qwenops-postgresql"]["password"]


def test_uninstall_leaves_secrets_and_the_claim_of_the_artifacts(render):
    kept = of_kind(render(), "Secret", "PersistentVolumeClaim")
    assert len(kept) == 3
    assert {item["metadata"]["annotations"]["helm.sh/resource-policy"] for item in kept} == {"keep"}


def test_key_file_of_the_object_store_holds_the_same_keys_as_its_variables(render):
    (secret,) = (item for item in of_kind(render(), "Secret") if item["metadata"]["name"] == "qwenops-object-store")
    (identity,) = json.loads(secret["stringData"]["s3.json"])["identities"]
    (pair,) = identity["credentials"]
    assert pair["accessKey"] == secret["stringData"]["AWS_ACCESS_KEY_ID"]
    assert pair["secretKey"] == secret["stringData"]["AWS_SECRET_ACCESS_KEY"]


def test_uri_of_the_database_names_its_service_and_password(render):
    (secret,) = (item for item in of_kind(render(), "Secret") if item["metadata"]["name"] == "qwenops-postgresql")
    values = secret["stringData"]
    assert values["uri"] == f"postgresql+psycopg2://mlflow:{values['password']}@qwenops-postgresql:5432/mlflow"
