"""A Kubeflow Pipelines back end on loopback: the v2beta1 REST protocol as far as the client uses it, kept in memory.

What it refuses is what Kubeflow Pipelines 2.17.0 refuses: a filter is unquoted once more than HTTP does and names few
fields (`backend/src/apiserver/server/list_request_util.go`, `model/pipeline_version.go`); names are unique and short
(`storage/pipeline_store.go`, `storage/experiment_store.go`, `validation/length.go`), and a new pipeline brings a first
version of its name (`server/pipeline_upload_server.go`); a run's parameters are those of the version's form, as text
(`template/v2_template.go`, `validatePipelineJobInputs`); lists come in pages of 20, at most 200 (`list/list.go`).
"""

import email
import json
import re
import uuid
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from urllib.parse import parse_qs, unquote_plus, urlparse

import yaml
from tests.platform.servers import serve

API = "/apis/v2beta1"
_FIELDS = {"id", "name", "display_name", "created_at", "description", "namespace", "status"}
_LONGEST = {"pipeline": 128, "version": 127}


class Refusal(Exception):
    """An answer with an HTTP status that is an error."""

    def __init__(self, status, message):
        super().__init__(message)
        self.status, self.message = status, message


class Backend:
    """What the server holds; a test sets `outcomes`, `token`, `namespace` before and reads the rest after."""

    def __init__(self):
        self.experiments, self.pipelines, self.versions, self.runs, self.recurring = {}, {}, {}, {}, {}
        self.forms = {}
        self.token = ""
        self.namespace = ""
        # A second client that is a moment ahead: called before each creation, once.
        self.meanwhile = None
        self.login_page = False
        # States that a run goes through, one a poll: (state of the run, {step: state}).
        self.outcomes = [("RUNNING", {"collect": "SUCCEEDED"}), ("SUCCEEDED", {"collect": "SUCCEEDED"})]
        self.requests = []

    def named(self, kind, query):
        """The page of `kind` that the query asks for."""
        found = list(kind.values())
        for text in filter(None, query.get("filter", [])):
            try:
                predicates = json.loads(unquote_plus(text))["predicates"]
            except (ValueError, KeyError) as error:
                raise Refusal(400, f"failed to parse valid filter from {text!r}: {error}") from None
            for predicate in predicates:
                if predicate["operation"] not in ("EQUALS", 1) or predicate["key"] not in _FIELDS:
                    raise Refusal(400, f"no support for filtering on {predicate}")
                found = [item for item in found if item.get(predicate["key"]) == predicate["stringValue"]]
        size = int(query.get("page_size", ["0"])[0]) or 20
        return found[: min(size, 200)]

    def add_version(self, pipeline_id, name, text, description=""):
        """A version of a pipeline."""
        _check_length("version", name)
        if any(v["pipeline_id"] == pipeline_id and v["name"] == name for v in self.versions.values()):
            raise Refusal(409, "Failed to create a pipeline version")
        form = next(iter(yaml.load_all(text, yaml.CSafeLoader)))["root"]["inputDefinitions"]["parameters"]
        version = {"pipeline_id": pipeline_id, "pipeline_version_id": uuid.uuid4().hex, "name": name}
        version |= {"display_name": name, "description": description}
        self.versions[version["pipeline_version_id"]] = version
        self.forms[version["pipeline_version_id"]] = form
        return version

    def check_parameters(self, item):
        """A run's or recurring run's parameters are those of its version, or of the newest where it names none."""
        asked = item["pipeline_version_reference"]
        own = [key for key, version in self.versions.items() if version["pipeline_id"] == asked["pipeline_id"]]
        version = asked.get("pipeline_version_id") or (own[-1] if own else "")
        if version not in self.forms:
            raise Refusal(404, f"PipelineVersion {version} not found")
        for name, value in item.get("runtime_config", {}).get("parameters", {}).items():
            if name not in self.forms[version]:
                raise Refusal(400, f"parameter(s) provided are not required by pipeline: {name}")
            if not isinstance(value, str):
                raise Refusal(400, f"input parameter {name} requires type string")

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
        try:
            if method == "POST" and backend.meanwhile:
                first, backend.meanwhile = backend.meanwhile, None
                first(path, query)
            status, answer = self._route(backend, method, path, query, body)
        except Refusal as refusal:
            status, answer = refusal.status, {"error_message": refusal.message, "error_details": refusal.message}
        return self._send(status, answer)

    def _route(self, backend, method, path, query, body):
        if path == "/healthz":
            return 200, {"multi_user": bool(backend.namespace)}
        if path in ("/pipelines/upload", "/pipelines/upload_version"):
            return self._upload(backend, path, query, body)
        kinds = {"/experiments": backend.experiments, "/runs": backend.runs, "/recurringruns": backend.recurring}
        if path in kinds and method == "POST":
            return 200, self._create(backend, path[1:], kinds[path], json.loads(body))
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
            {"runs": backend.runs, "recurringruns": backend.recurring}[one[1]].pop(one[2])
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
            if query["pipelineid"][0] not in backend.pipelines:
                raise Refusal(400, "Failed to create a pipeline version")
            return 200, backend.add_version(query["pipelineid"][0], name, text, query.get("description", [""])[0])
        return 200, self._pipeline(backend, name, query.get("namespace", [""])[0], text)

    def _pipeline(self, backend, name, namespace, text):
        _check_length("pipeline", name)
        if any((item["name"], item["namespace"]) == (name, namespace) for item in backend.pipelines.values()):
            raise Refusal(409, "Failed to create a pipeline and a pipeline version")
        pipeline = {"pipeline_id": uuid.uuid4().hex, "name": name, "display_name": name, "namespace": namespace}
        backend.pipelines[pipeline["pipeline_id"]] = pipeline
        backend.add_version(pipeline["pipeline_id"], name, text)
        return pipeline

    def _create(self, backend, plural, kind, item):
        key = {"experiments": "experiment_id", "runs": "run_id", "recurringruns": "recurring_run_id"}[plural]
        if not item.get("display_name"):
            raise Refusal(400, "The run name is empty. Please specify a valid name")
        if plural == "experiments":
            taken = [(found["display_name"], found.get("namespace") or "") for found in kind.values()]
            if (item["display_name"], item.get("namespace") or "") in taken:
                raise Refusal(409, f"The name {item['display_name']} already exists. Please specify a new name")
        else:
            backend.check_parameters(item)
            if item["experiment_id"] not in backend.experiments:
                raise Refusal(404, f"Experiment {item['experiment_id']} not found")
        item |= {key: uuid.uuid4().hex, "polls": 0}
        kind[item[key]] = item
        return item


def _check_length(kind, name):
    if len(name) > _LONGEST[kind]:
        raise Refusal(400, f"{kind}'s Name length cannot exceed {_LONGEST[kind]}")


@contextmanager
def kubeflow():
    """A back end: yields its address and what it holds."""
    backend = Backend()
    with serve(_Handler, backend=backend) as address:
        yield address, backend
