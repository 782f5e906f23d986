"""A Kubernetes API server as its clients see it: HTTP on loopback, objects with versions, watches, pod logs.

It keeps what the launcher depends on: one growing resource version, chunked watch streams that begin after a
version, 410 once history is compacted, 409 for a taken name, foreground deletion along owner references, followed
logs with time stamps. `fail` answers the next matching requests with a status; `restart` closes every
connection and the port, and opens it again. Objects that a real server or KubeRay refuse are refused (`kube_rules`).
"""

import contextlib
import copy
import json
import re
import socket
import threading
import time
import uuid
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.platform.kube_rules import kuberay_refusals, server_refusals

_TERMINAL = {"Complete", "Failed", "ValidationFailed"}
_PATH = re.compile(
    r"^/(?:api/v1|apis/(?P<group>[^/]+)/[^/]+)/namespaces/(?P<ns>[^/]+)/(?P<plural>[^/]+)(?:/(?P<name>[^/]+))?(?P<rest>/\w+)?$"
)
_KINDS = {"rayjobs": "RayJob", "pods": "Pod", "events": "Event", "workloads": "Workload", "workflows": "Workflow"}


def now(seconds: float = 0.0) -> str:
    """A Kubernetes time stamp, `seconds` from now."""
    return datetime.fromtimestamp(time.time() + seconds, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


class Store:
    """Objects, their history and their logs; all access under one condition."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.version = 100
        self.compacted = 0
        self.objects: dict[tuple[str, str], dict] = {}
        self.history: list[tuple[int, str, str, dict]] = []
        self.logs: dict[tuple[str, str], list[str]] = {}
        self.finished_logs: set[tuple[str, str]] = set()
        self.admits = True
        self.deleted: list[str] = []

    def put(self, plural: str, body: dict, kind: str = "MODIFIED") -> dict:
        with self.changed:
            self.version += 1
            body["metadata"]["resourceVersion"] = str(self.version)
            self.objects[plural, body["metadata"]["name"]] = body
            self.history.append((self.version, plural, kind, copy.deepcopy(body)))
            self.changed.notify_all()
            return body

    def add(self, plural: str, body: dict) -> dict:
        meta = body["metadata"]
        meta |= {"uid": meta.get("uid", uuid.uuid4().hex), "creationTimestamp": now(), "namespace": "team"}
        if plural == "rayjobs" and "kueue.x-k8s.io/queue-name" in meta["labels"]:
            # Kueue's webhook suspends every job of a queue until there is quota.
            body["spec"]["suspend"] = True
        refused = "; ".join(kuberay_refusals(body)) if plural == "rayjobs" else ""
        if refused:
            body["status"] = {
                "jobDeploymentStatus": "ValidationFailed",
                "reason": "ValidationFailed",
                "message": refused,
            }
        return self.put(plural, body, "ADDED")

    def status(self, name: str, **status) -> None:
        """What the operator's status update does."""
        with self.changed:
            job = copy.deepcopy(self.objects["rayjobs", name])
            job["status"] = job.get("status", {}) | status
            self.put("rayjobs", job)

    def remove(self, plural: str, name: str) -> None:
        """Remove an object with what it owns, as the garbage collector does in the end."""
        with self.changed:
            body = self.objects.pop((plural, name), None)
            if body is None:
                return
            self.version += 1
            self.deleted.append(name)
            self.history.append((self.version, plural, "DELETED", body))
            uid = body["metadata"]["uid"]
            owned = [
                key
                for key, other in self.objects.items()
                if any(owner["uid"] == uid for owner in other["metadata"].get("ownerReferences", []))
            ]
            self.changed.notify_all()
        for key in owned:
            self.remove(*key)

    def begin_delete(self, plural: str, name: str, foreground: bool) -> dict:
        with self.changed:
            body = copy.deepcopy(self.objects[plural, name])
            body["metadata"]["deletionTimestamp"] = now()
            if foreground:
                body["metadata"]["finalizers"] = [*body["metadata"].get("finalizers", []), "foregroundDeletion"]
            self.put(plural, body)
            held = [f for f in body["metadata"].get("finalizers", []) if f != "foregroundDeletion"]
        if not held:
            self.remove(plural, name)
        return body

    def quota_holders(self) -> list[str]:
        """RayJobs that hold quota: admitted, there, and not ended; a refused one holds it until it is deleted."""
        with self.changed:
            return [
                name
                for (plural, name), job in self.objects.items()
                if plural == "rayjobs"
                and "kueue.x-k8s.io/queue-name" in job["metadata"]["labels"]
                and job["spec"].get("suspend") is False
                and job.get("status", {}).get("jobDeploymentStatus") not in ("Complete", "Failed")
            ]

    def log(self, pod: str, container: str, *lines: str) -> None:
        with self.changed:
            stamp = datetime.now(UTC).isoformat().replace("+00:00", "Z")
            self.logs.setdefault((pod, container), []).extend(f"{stamp[:-1]}{i:03d}Z {t}" for i, t in enumerate(lines))
            self.changed.notify_all()

    def end_log(self, pod: str, container: str) -> None:
        with self.changed:
            self.finished_logs.add((pod, container))
            body = copy.deepcopy(self.objects["pods", pod])
            done = {"exitCode": 0, "finishedAt": now()}
            body["status"]["containerStatuses"] = [
                {"name": container, "image": "i", "imageID": "i", "ready": False, "restartCount": 0}
                | {"state": {"terminated": done}}
            ]
            self.put("pods", body)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    @property
    def kube(self) -> "KubeServer":
        return self.server.kube  # type: ignore[attr-defined]

    def log_message(self, *_):
        """Quiet."""

    def do_GET(self):
        self._serve("GET")

    def do_POST(self):
        self._serve("POST")

    def do_PATCH(self):
        self._serve("PATCH")

    def do_DELETE(self):
        self._serve("DELETE")

    def _serve(self, method: str) -> None:
        self.kube.connections.add(self.connection)
        length = int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(length)) if length else {}
        url = urlsplit(self.path)
        query = {key: values[0] for key, values in parse_qs(url.query).items()}
        found = _PATH.match(url.path)
        self.kube.requests.append((method, url.path, query, body))
        fault = self.kube.fault(method, self.path)
        try:
            if fault:
                self._answer(fault[0], _status(fault[0], fault[1]), {"Retry-After": "0"} if fault[0] == 429 else {})
            elif not found or found["plural"] not in _KINDS:
                self._answer(404, _status(404, "the server could not find the requested resource"))
            else:
                getattr(self, f"_{method.lower()}")(found, query, body)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    def _post(self, found, _, body) -> None:
        store = self.kube.store
        with store.changed:
            for status, message in server_refusals(body):
                self._answer(status, _status(status, message))
                return
            taken = (found["plural"], body["metadata"]["name"]) in store.objects
            if taken:
                self._answer(409, _status(409, f'{found["plural"]} "{body["metadata"]["name"]}" already exists'))
                return
            created = store.add(found["plural"], body)
        self.kube.on_create()
        if self.kube.lose_next_answer:
            self.kube.lose_next_answer = False
            self.connection.shutdown(socket.SHUT_RDWR)
            raise ConnectionResetError
        self._answer(201, created)

    def _patch(self, found, _, body) -> None:
        """No strategic merge for custom resources (apiextensions-apiserver, `customresource_handler.go`)."""
        key, store = (found["plural"], found["name"]), self.kube.store
        with store.changed:
            if self.headers["Content-Type"] != "application/merge-patch+json":
                self._answer(415, _status(415, "the body of the request was in an unknown format"))
            elif key not in store.objects:
                self._answer(404, _status(404, f'{found["plural"]} "{found["name"]}" not found'))
            else:
                self._answer(200, store.put(key[0], _merged(store.objects[key], body)))

    def _delete(self, found, query, body) -> None:
        key = (found["plural"], found["name"])
        with self.kube.store.changed:
            if key not in self.kube.store.objects:
                self._answer(404, _status(404, f'{found["plural"]} "{found["name"]}" not found'))
                return
            policy = body.get("propagationPolicy") or query.get("propagationPolicy")
            self._answer(200, self.kube.store.begin_delete(*key, foreground=policy == "Foreground"))

    def _get(self, found, query, _) -> None:
        if found["rest"] == "/log":
            self._log(found["name"], query)
        elif query.get("watch"):
            self._watch(found["plural"], query)
        elif found["name"]:
            body = self.kube.store.objects.get((found["plural"], found["name"]))
            self._answer(200, body) if body else self._answer(404, _status(404, f"{found['name']} not found"))
        else:
            self._list(found["plural"], query)

    def _list(self, plural: str, query: dict) -> None:
        store = self.kube.store
        with store.changed:
            items = [body for (kind, _), body in store.objects.items() if kind == plural and _matches(body, query)]
            answer = {"apiVersion": "v1", "kind": f"{_KINDS[plural]}List", "items": items}
            self._answer(200, answer | {"metadata": {"resourceVersion": str(store.version)}})

    def _watch(self, plural: str, query: dict) -> None:
        store, seen = self.kube.store, int(query["resourceVersion"])
        self._begin()
        if seen < store.compacted:
            self._chunk(json.dumps({"type": "ERROR", "object": _status(410, "too old resource version")}) + "\n")
            self._chunk("")
            return
        deadline = time.monotonic() + min(int(query.get("timeoutSeconds", 60)), self.kube.longest_watch)
        generation = self.kube.generation
        while time.monotonic() < deadline and generation == self.kube.generation:
            with store.changed:
                fresh = [e for e in store.history if e[0] > seen and e[1] == plural and _matches(e[3], query)]
                if not fresh:
                    store.changed.wait(0.02)
            for version, _, kind, body in fresh:
                seen = version
                self._chunk(json.dumps({"type": kind, "object": body}) + "\n")
        self._chunk("")

    def _log(self, pod: str, query: dict) -> None:
        store, key = self.kube.store, (pod, query["container"])
        if ("pods", pod) not in store.objects:
            self._answer(404, _status(404, f"pods {pod} not found"))
            return
        if key not in store.logs:
            self._answer(400, _status(400, f"container {key[1]} is waiting to start: ContainerCreating"))
            return
        self._begin()
        sent, generation = 0, self.kube.generation
        if "sinceSeconds" in query:
            oldest = now(-int(query["sinceSeconds"]))[:19]
            sent = sum(line[:19] < oldest for line in store.logs[key])
        while generation == self.kube.generation:
            with store.changed:
                lines = store.logs[key][sent:]
                if not lines and key in store.finished_logs:
                    break
                if not lines:
                    store.changed.wait(0.02)
            for line in lines:
                sent += 1
                self._chunk(line + "\n")
            if self.kube.cut_logs_after and sent >= self.kube.cut_logs_after:
                self.kube.cut_logs_after = 0
                self.connection.shutdown(socket.SHUT_RDWR)
                raise ConnectionResetError
        self._chunk("")

    def _begin(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()

    def _chunk(self, text: str) -> None:
        piece = text.encode()
        self.wfile.write(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
        self.wfile.flush()

    def _answer(self, status: int, body: dict, headers: dict[str, str] | None = None) -> None:
        text = json.dumps(body).encode()
        self.send_response(status)
        for name, value in {
            "Content-Type": "application/json",
            "Content-Length": str(len(text)),
            **(headers or {}),
        }.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(text)


class KubeServer:
    """The server: `url`, its `store`, and ways to make it misbehave."""

    def __init__(self) -> None:
        self.store = Store()
        self.requests: list[tuple] = []
        self.connections: set = set()
        self.generation = 0
        self.longest_watch = 60.0
        self.cut_logs_after = 0
        self.lose_next_answer = False
        self.on_create = lambda: None
        self._faults: list[list] = []
        self._port = 0
        self._open()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def fail(self, method: str, path: str, status: int, times: int = 1, message: str = "no") -> None:
        """Answer the next `times` requests that match with `status`."""
        self._faults.append([method, re.compile(path), status, times, message])

    def fault(self, method: str, path: str) -> tuple[int, str] | None:
        for fault in self._faults:
            if fault[0] == method and fault[1].search(path) and fault[3] > 0:
                fault[3] -= 1
                return fault[2], fault[4]
        return None

    def compact(self) -> None:
        """Forget history: a watch from an older version gets 410."""
        with self.store.changed:
            self.store.version += 1
            self.store.compacted = self.store.version

    def drop_connections(self) -> None:
        """Break every open stream."""
        self.generation += 1
        for connection in list(self.connections):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        self.connections.clear()

    def restart(self, down_seconds: float) -> None:
        """Be away for a while; objects stay, as they do in etcd."""
        self.close()
        time.sleep(down_seconds)
        self._open()

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()
        self.drop_connections()

    def _open(self) -> None:
        ThreadingHTTPServer.allow_reuse_address = True
        self._http = ThreadingHTTPServer(("127.0.0.1", self._port), _Handler)
        self._http.daemon_threads = True
        self._http.block_on_close = False
        self._http.kube = self  # type: ignore[attr-defined]
        self._port = self._http.server_address[1]
        threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()


def _status(code: int, message: str) -> dict:
    reasons = {403: "Forbidden", 404: "NotFound", 409: "AlreadyExists", 410: "Expired", 422: "Invalid"}
    body = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "message": message}
    return body | {"reason": reasons.get(code, "InternalError"), "metadata": {}}


def _merged(before: Any, patch: Any) -> Any:
    """RFC 7386: objects are merged, null removes, everything else replaces."""
    if not isinstance(before, dict) or not isinstance(patch, dict):
        return copy.deepcopy(patch)
    kept = {key: value for key, value in before.items() if patch.get(key, value) is not None}
    return kept | {key: _merged(before.get(key, {}), value) for key, value in patch.items() if value is not None}


def _matches(body: dict, query: dict) -> bool:
    meta = body["metadata"]
    for part in filter(None, query.get("labelSelector", "").split(",")):
        key, _, value = part.partition("=")
        if meta.get("labels", {}).get(key) != value:
            return False
    name = query.get("fieldSelector", "").removeprefix("metadata.name=")
    return not name or meta["name"] == name
