"""A Kubeflow Pipelines back end on loopback: the v2beta1 REST protocol as far as the client uses it, kept in memory.

What it refuses is what Kubeflow Pipelines 2.17.0 refuses: `kubeflow_rules`. How it answers was read from
`backend/src/apiserver`: names are unique and a taken one is 409, what is not yet ready is not listed
(`storage/pipeline_store.go`, `storage/experiment_store.go`); one user's server knows no namespaces
(`resource/resource_manager.go`, `ReplaceNamespace`); a new pipeline brings a first version of its name
(`server/pipeline_upload_server.go`, which also words its errors in its own way); a recurring run without a version is
checked against the newest (`resource_manager.go`, `CreateJob`); the nodes of a run are Argo's, under their shown names,
and a terminated run ends as a failed one (`ReportWorkflowResource`); the older API still hands out the Workflow
(`server/run_server.go`, `GetRunV1`).
"""

import email
import json
import re
import uuid
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from urllib.parse import parse_qs, urlparse

from tests.dags import argo_nodes
from tests.dags.kubeflow_rules import (
    Refusal,
    check_file,
    check_length,
    check_parameters,
    check_recurring,
    form_of,
    page_of,
    same,
)
from tests.platform.servers import serve

API, OLDER_API = "/apis/v2beta1", "/apis/v1beta1"
_GRPC = {400: 3, 401: 16, 403: 7, 404: 5, 409: 6, 500: 13}


class Backend:
    """What the server holds; a test sets `outcomes`, `token`, `namespace` before and reads the rest after."""

    def __init__(self):
        self.experiments, self.pipelines, self.versions, self.runs, self.recurring = {}, {}, {}, {}, {}
        self.forms = {}
        self.token = ""
        # The one namespace of this user, on a server of many users; empty: a server of one user.
        self.namespace = ""
        # A second client that is a moment ahead: called before each creation, once.
        self.meanwhile = None
        self.login_page = False
        self.has_older_api = True
        # States that a run goes through, one a poll: (state of the run, {step: state as of `argo_nodes`}, options).
        self.outcomes = [("RUNNING", {"collect": "running"}), ("SUCCEEDED", {"collect": "succeeded"})]
        self.requests, self.answers = [], []

    def add_version(self, pipeline_id, name, text, description="", unready=0):
        """A version of a pipeline; the next `unready` lists do not show it."""
        check_length("PipelineVersion", name)
        if any(v["pipeline_id"] == pipeline_id and same(v["name"], name) for v in self.versions.values()):
            raise Refusal(409, "Failed to create a pipeline version")
        version = {"pipeline_id": pipeline_id, "pipeline_version_id": uuid.uuid4().hex, "name": name}
        version |= {"display_name": name, "description": description, "unready": unready}
        self.forms[version["pipeline_version_id"]] = form_of(text)
        self.versions[version["pipeline_version_id"]] = version
        return version

    def ready(self, pipeline_id):
        """Versions of a pipeline that lists show."""
        found = [version for version in self.versions.values() if version["pipeline_id"] == pipeline_id]
        shown = [version for version in found if not version["unready"]]
        for version in found:
            version["unready"] = max(0, version["unready"] - 1)
        return shown

    def seen(self, namespace):
        """The namespace as the server sees it."""
        return namespace if self.namespace else ""

    def poll(self, run_id, further):
        """The run and its Workflow, one state further where asked."""
        run = self.runs[run_id]
        run["polls"] += further
        state, steps, *options = self.outcomes[min(max(run["polls"] - 1, 0), len(self.outcomes) - 1)]
        return run | {"state": state}, argo_nodes.workflow(
            f"run-{run_id[:5]}", steps, **(options[0] if options else {})
        )


class JsonHandler(BaseHTTPRequestHandler):
    """Hands each request to `_answer(method)` of a subclass, which answers by `_send`."""

    def do_GET(self):
        self._answer("GET")

    def do_POST(self):
        self._answer("POST")

    def do_DELETE(self):
        self._answer("DELETE")

    def log_message(self, *arguments):
        pass

    def _send(self, status, answer, kind="application/json"):
        data = answer.encode() if isinstance(answer, str) else json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


class _Handler(JsonHandler):
    def _answer(self, method):
        backend, address = self.server.backend, urlparse(self.path)
        query = parse_qs(address.query)
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        backend.requests.append((method, address.path))
        if backend.login_page:
            return self._send(200, "<html>sign in</html>", "text/html")
        try:
            self._admit(backend, query)
            if method == "POST" and backend.meanwhile:
                first, backend.meanwhile = backend.meanwhile, None
                first()
            status, answer = self._route(backend, method, address.path, query, body)
        except Refusal as refusal:
            status, message = refusal.status, refusal.message
            answer = {"code": _GRPC[status], "message": message, "details": []}
            if "/upload" in address.path:
                answer = {"error_message": message, "error_details": message}
        backend.answers.append(status)
        return self._send(status, answer)

    def _admit(self, backend, query):
        if backend.token and self.headers.get("authorization") != f"Bearer {backend.token}":
            raise Refusal(401, "Unauthenticated: the token is not valid")
        asked = query.get("namespace", [""])[0]
        if backend.namespace and asked and asked != backend.namespace:
            raise Refusal(403, f"User may not access namespace {asked}")

    def _route(self, backend, method, path, query, body):
        if path.startswith(f"{OLDER_API}/runs/") and backend.has_older_api:
            run, workflow = backend.poll(path.rsplit("/", 1)[1], further=False)
            manifest = json.dumps(workflow) if run["polls"] else ""
            return 200, {"run": {"id": run["run_id"]}, "pipeline_runtime": {"workflow_manifest": manifest}}
        path = path.removeprefix(API)
        if path == "/healthz":
            return 200, {"multi_user": bool(backend.namespace)}
        if path in ("/pipelines/upload", "/pipelines/upload_version"):
            return 200, self._upload(backend, path, query, body)
        if method == "POST":
            return 200, self._create(backend, path[1:], json.loads(body))
        if method == "GET" and (listed := self._listed(backend, path, query)):
            return 200, page_of(*listed, query)
        one = re.fullmatch(r"/(runs|recurringruns)/([^/]+)", path)
        if one and method == "GET" and one[2] in backend.runs:
            run, workflow = backend.poll(one[2], further=True)
            return 200, run | {"run_details": {"task_details": argo_nodes.task_details(workflow)}}
        if one and method == "DELETE":
            {"runs": backend.runs, "recurringruns": backend.recurring}[one[1]].pop(one[2])
            return 200, {}
        raise Refusal(404, f"{method} {path} not found")

    def _listed(self, backend, path, query):
        """Name and objects of a list."""
        namespace = backend.seen(query.get("namespace", [""])[0])
        kinds = {"/experiments": backend.experiments, "/pipelines": backend.pipelines}
        if path in kinds:
            return path[1:], [item for item in kinds[path].values() if item.get("namespace", "") == namespace]
        if path == "/recurringruns":
            experiment = query.get("experiment_id", [""])[0]
            return "recurringRuns", [r for r in backend.recurring.values() if r["experiment_id"] == experiment]
        versions = re.fullmatch(r"/pipelines/([^/]+)/versions", path)
        return ("pipeline_versions", backend.ready(versions[1])) if versions else None

    def _upload(self, backend, path, query, body):
        kind = b"Content-Type: " + self.headers["Content-Type"].encode() + b"\r\n\r\n"
        file = email.message_from_bytes(kind + body).get_payload()[0]
        data = file.get_payload(decode=True)
        check_file(file.get_filename(), data)
        name, text = query["name"][0], data.decode()
        if path.endswith("version"):
            if query["pipelineid"][0] not in backend.pipelines:
                raise Refusal(400, "Failed to create a pipeline version")
            return backend.add_version(query["pipelineid"][0], name, text, query.get("description", [""])[0])
        namespace = backend.seen(query.get("namespace", [""])[0])
        check_length("Pipeline", name)
        form_of(text)
        taken = [item["name"] for item in backend.pipelines.values() if item["namespace"] == namespace]
        if any(same(name, other) for other in taken):
            raise Refusal(409, "Failed to create a pipeline and a pipeline version")
        pipeline = {"pipeline_id": uuid.uuid4().hex, "name": name, "display_name": name, "namespace": namespace}
        backend.pipelines[pipeline["pipeline_id"]] = pipeline
        backend.add_version(pipeline["pipeline_id"], name, text)
        return pipeline

    def _create(self, backend, plural, item):
        key = {"experiments": "experiment_id", "runs": "run_id", "recurringruns": "recurring_run_id"}[plural]
        if not item.get("display_name"):
            raise Refusal(400, "The name is empty. Please specify a valid name")
        if plural == "experiments":
            kind = backend.experiments
            item["namespace"] = backend.seen(item.get("namespace") or "")
            check_length("Experiment", item["display_name"])
            if backend.namespace and not item["namespace"]:
                raise Refusal(400, "Namespace cannot be empty")
            mine = [found for found in kind.values() if found.get("namespace", "") == item["namespace"]]
            if any(same(found["display_name"], item["display_name"]) for found in mine):
                raise Refusal(409, f"The name {item['display_name']} already exists. Please specify a new name")
        else:
            kind = {"runs": backend.runs, "recurringruns": backend.recurring}[plural]
            if item["experiment_id"] not in backend.experiments:
                raise Refusal(404, f"Experiment {item['experiment_id']} not found")
            self._check(backend, plural, item)
        item |= {key: uuid.uuid4().hex, "polls": 0}
        kind[item[key]] = item
        return item

    def _check(self, backend, plural, item):
        if plural == "recurringruns":
            check_recurring(item)
        asked, given = item["pipeline_version_reference"], item.get("runtime_config", {}).get("parameters", {})
        version = asked.get("pipeline_version_id")
        if version:
            # An error of `CreateRun` about the version is an internal one.
            if version not in backend.versions:
                raise Refusal(500, f"PipelineVersion {version} not found")
            if backend.versions[version]["pipeline_id"] != asked["pipeline_id"]:
                raise Refusal(500, f"Pipeline version {version} belongs to another pipeline")
        else:
            own = [
                v["pipeline_version_id"] for v in backend.versions.values() if v["pipeline_id"] == asked["pipeline_id"]
            ]
            if not own:
                raise Refusal(404, f"PipelineVersion {asked['pipeline_id']} not found")
            version = own[-1]
        check_parameters(backend.forms[version], given)


@contextmanager
def kubeflow():
    """A back end: yields its address and what it holds."""
    backend = Backend()
    with serve(_Handler, backend=backend) as address:
        yield address, backend
