"""A Kubeflow Pipelines back end on loopback: the v2beta1 REST protocol as far as the client uses it, kept in memory."""

import email
import json
import re
import uuid
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from urllib.parse import parse_qs, urlparse

from tests.platform.servers import serve

API = "/apis/v2beta1"


class Backend:
    """What the server holds; a test sets `outcomes`, `token`, `namespace` before and reads the rest after."""

    def __init__(self):
        self.experiments, self.pipelines, self.versions, self.runs, self.recurring = {}, {}, {}, {}, {}
        self.token = ""
        self.namespace = ""
        self.login_page = False
        # States that a run goes through, one a poll: (state of the run, {step: state}).
        self.outcomes = [("RUNNING", {"collect": "SUCCEEDED"}), ("SUCCEEDED", {"collect": "SUCCEEDED"})]
        self.requests = []

    def named(self, kind, query):
        """The objects of `kind` that the filter of the query asks for by name."""
        found = list(kind.values())
        for text in query.get("filter", []):
            for predicate in json.loads(text)["predicates"]:
                found = [item for item in found if item[predicate["key"]] == predicate["stringValue"]]
        return found

    def poll(self, run_id):
        """The run, one state further."""
        run = self.runs[run_id]
        state, steps = self.outcomes[min(run["polls"], len(self.outcomes) - 1)]
        run["polls"] += 1
        details = [{"task_id": name, "display_name": name, "state": step} for name, step in steps.items()]
        return run | {"state": state, "run_details": {"task_details": details}}


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
        if backend.token and self.headers.get("authorization") != f"Bearer {backend.token}":
            return self._send(401, {"code": 16, "message": "Unauthenticated: the token is not valid"})
        asked = query.get("namespace", [""])[0]
        if backend.namespace and asked and asked != backend.namespace:
            return self._send(403, {"code": 7, "message": f"User may not access namespace {asked}"})
        path = address.path.removeprefix(API)
        status, answer = self._route(backend, method, path, query, body)
        return self._send(status, answer)

    def _route(self, backend, method, path, query, body):
        if path == "/healthz":
            return 200, {"multi_user": bool(backend.namespace)}
        if path in ("/pipelines/upload", "/pipelines/upload_version"):
            return self._upload(backend, path, query, body)
        kinds = {"/experiments": backend.experiments, "/runs": backend.runs, "/recurringruns": backend.recurring}
        if path in kinds and method == "POST":
            return 200, self._create(path[1:], kinds[path], json.loads(body))
        lists = {**kinds, "/pipelines": backend.pipelines}
        if path in lists:
            key = {"/recurringruns": "recurringRuns"}.get(path, path[1:])
            found = backend.named(lists[path], query)
            if path == "/pipelines":
                found = [item for item in found if item["namespace"] == query.get("namespace", [""])[0]]
            return 200, {key: found}
        versions = re.fullmatch(r"/pipelines/([^/]+)/versions", path)
        if versions:
            own = {k: v for k, v in backend.versions.items() if v["pipeline_id"] == versions[1]}
            return 200, {"pipeline_versions": backend.named(own, query)}
        one = re.fullmatch(r"/(runs|recurringruns)/([^/]+)", path)
        if one and method == "GET" and one[1] == "runs":
            return 200, backend.poll(one[2])
        if one and method == "DELETE":
            del backend.recurring[one[2]]
            return 200, {}
        return 404, {"code": 5, "message": f"{method} {path} not found"}

    def _upload(self, backend, path, query, body):
        message = email.message_from_bytes(
            b"Content-Type: " + self.headers["Content-Type"].encode() + b"\r\n\r\n" + body
        )
        text = message.get_payload()[0].get_payload(decode=True).decode()
        assert "pipelineInfo" in text
        name = query["name"][0]
        if path.endswith("version"):
            version = {
                "pipeline_id": query["pipelineid"][0],
                "pipeline_version_id": uuid.uuid4().hex,
                "display_name": name,
                "description": query.get("description", [""])[0],
            }
            backend.versions[version["pipeline_version_id"]] = version
            return 200, version
        namespace = query.get("namespace", [""])[0]
        if any((item["display_name"], item["namespace"]) == (name, namespace) for item in backend.pipelines.values()):
            return 409, {"error_message": "Failed to create a pipeline and a pipeline version"}
        pipeline = {"pipeline_id": uuid.uuid4().hex, "display_name": name, "namespace": namespace}
        backend.pipelines[pipeline["pipeline_id"]] = pipeline
        return 200, pipeline

    def _create(self, plural, kind, item):
        key = {"experiments": "experiment_id", "runs": "run_id", "recurringruns": "recurring_run_id"}[plural]
        item |= {key: uuid.uuid4().hex, "polls": 0}
        kind[item[key]] = item
        return item


@contextmanager
def kubeflow():
    """A back end: yields its address and what it holds."""
    backend = Backend()
    with serve(_Handler, backend=backend) as address:
        yield address, backend
