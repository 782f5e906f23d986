"""KubeRay's part with real pods, for a cluster that has nodes and no operator.

It makes what KubeRay makes of a RayJob in K8sJobMode, with KubeRay's names, start commands and probes: a head pod,
worker pods, a submitter pod, and the job's status from the Ray dashboard. A lost head ends the job as KubeRay ends
it. Not played: suspension, retries, autoscaling, the other submission modes.
"""

import json
import threading
import time
import urllib.error
import urllib.request
from datetime import UTC, datetime
from typing import Any

from kubernetes import client
from kubernetes.client.rest import ApiException
from urllib3.exceptions import HTTPError

_PLACE = ("ray.io", "v1")
_OWNED = "ray.io/originated-from-cr-name"
_ENDED = ("Complete", "Failed")
_HEALTHY = (
    "wget -T 4 -q -O- http://localhost:52365/api/local_raylet_healthz | grep success"
    " && wget -T 4 -q -O- http://localhost:8265/api/gcs_healthz | grep success"
)

Json = dict[str, Any]


class PodOperator(threading.Thread):
    """Minds every RayJob of one namespace until it is closed."""

    def __init__(self, api: client.ApiClient, namespace: str) -> None:
        super().__init__(daemon=True)
        self._objects, self._core = client.CustomObjectsApi(api), client.CoreV1Api(api)
        self._namespace = namespace
        self._stopped = threading.Event()

    def __enter__(self) -> "PodOperator":
        self.start()
        return self

    def __exit__(self, *_) -> None:
        self._stopped.set()
        self.join(20)

    def run(self) -> None:
        while not self._stopped.wait(0.5):
            try:
                for job in self._objects.list_namespaced_custom_object(*_PLACE, self._namespace, "rayjobs")["items"]:
                    self._mind(job)
            except (HTTPError, OSError, ApiException):
                continue

    def pods(self, job: str, kind: str = "") -> list[Any]:
        """Pods made for a job; of one kind (head, worker, submitter) where it is named."""
        selector = f"{_OWNED}={job}" + (f",ray.io/node-type={kind}" if kind else "")
        return self._core.list_namespaced_pod(self._namespace, label_selector=selector).items

    def _mind(self, job: Json) -> None:
        name, status = job["metadata"]["name"], job.get("status") or {}
        if job["metadata"].get("deletionTimestamp"):
            # The cluster's garbage collector takes the pods.
            return
        if "jobDeploymentStatus" not in status:
            begun = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
            self._pod(job, "head", job["spec"]["rayClusterSpec"]["headGroupSpec"], self._head_command(job))
            self._status(name, jobDeploymentStatus="Initializing", rayClusterName=f"{name}-c", startTime=begun)
        elif status["jobDeploymentStatus"] not in _ENDED:
            self._advance(job, status)

    def _advance(self, job: Json, status: Json) -> None:
        name, spec = job["metadata"]["name"], job["spec"]
        begun = datetime.fromisoformat(status["startTime"]).timestamp()
        running = status["jobDeploymentStatus"] == "Running"
        if time.time() - begun > spec.get("activeDeadlineSeconds", 1e9):
            self._fail(name, "DeadlineExceeded", "the RayJob has passed the activeDeadlineSeconds")
        elif not running and time.time() - begun > spec.get("preRunningDeadlineSeconds", 1e9):
            self._fail(name, "PreRunningDeadlineExceeded", "the RayJob has passed the preRunningDeadlineSeconds")
        elif not (heads := [pod for pod in self.pods(name, "head") if not pod.metadata.deletion_timestamp]):
            self._fail(name, "AppFailed", "the head pod is gone", jobStatus="FAILED")
        elif not running:
            self._begin(job, heads[0])
        else:
            self._look(name, heads[0])

    def _begin(self, job: Json, head: Any) -> None:
        name = job["metadata"]["name"]
        if not any(c.type == "Ready" and c.status == "True" for c in head.status.conditions or []):
            return
        address = head.status.pod_ip
        for group in job["spec"]["rayClusterSpec"].get("workerGroupSpecs", []):
            for _ in range(group.get("replicas", 0)):
                command = f"ray start --address={address}:6379 {_parameters(group)} --block"
                self._pod(job, "worker", group, command)
        dashboard = f"--address http://{address}:8265"
        command = (
            f"ray job submit {dashboard} --no-wait --submission-id {name} -- {job['spec']['entrypoint']}"
            f" ; ray job logs {dashboard} --follow {name}"
        )
        self._pod(job, "submitter", {"template": job["spec"]["submitterPodTemplate"]}, command)
        self._status(name, jobDeploymentStatus="Running", jobStatus="PENDING", jobId=name)

    def _look(self, name: str, head: Any) -> None:
        try:
            with urllib.request.urlopen(f"http://{head.status.pod_ip}:8265/api/jobs/{name}", timeout=3) as answer:
                facts = json.load(answer)
        except (urllib.error.URLError, OSError):
            # Not submitted yet, or the head does not answer: its pod decides.
            return
        if facts["status"] == "SUCCEEDED":
            self._status(name, jobStatus="SUCCEEDED", jobDeploymentStatus="Complete")
        elif facts["status"] in ("FAILED", "STOPPED"):
            self._fail(name, "AppFailed", facts.get("message") or "", jobStatus=facts["status"])
        else:
            self._status(name, jobStatus=facts["status"])

    def _head_command(self, job: Json) -> str:
        return f"ray start --head {_parameters(job['spec']['rayClusterSpec']['headGroupSpec'])} --block"

    def _pod(self, job: Json, kind: str, group: Json, command: str) -> None:
        name, template = job["metadata"]["name"], json.loads(json.dumps(group["template"]))
        labels = template["metadata"].setdefault("labels", {})
        labels |= {_OWNED: name, "ray.io/node-type": kind}
        labels |= {"job-name": name} if kind == "submitter" else {"ray.io/cluster": f"{name}-c"}
        suffix = "" if kind == "head" else f"-{len(self.pods(name, kind))}"
        template["metadata"]["name"] = f"{name}-{kind}{suffix}"
        owner = {"apiVersion": "ray.io/v1", "kind": "RayJob", "name": name, "uid": job["metadata"]["uid"]}
        # A job deleted in the foreground goes after its pods.
        template["metadata"]["ownerReferences"] = [owner | {"controller": True, "blockOwnerDeletion": True}]
        container = template["spec"]["containers"][0]
        container["command"], container["args"] = ["/bin/bash", "-lc", "--"], [f"ulimit -n 65536; {command}"]
        if kind == "head":
            check = {"exec": {"command": ["bash", "-c", _HEALTHY]}}
            container["readinessProbe"] = check | {"periodSeconds": 2, "timeoutSeconds": 5, "failureThreshold": 60}
        try:
            self._core.create_namespaced_pod(
                self._namespace, {"apiVersion": "v1", "kind": "Pod"} | template, _request_timeout=20
            )
        except ApiException as error:
            if error.status != 409:
                self._fail(name, "ValidationFailed", str(error.body))

    def _fail(self, name: str, reason: str, message: str, **status: str) -> None:
        self._status(name, jobDeploymentStatus="Failed", reason=reason, message=message, **status)

    def _status(self, name: str, **status: str) -> None:
        write = self._objects.patch_namespaced_custom_object_status
        try:
            write(*_PLACE, self._namespace, "rayjobs", name, {"status": status})
        except ApiException as error:
            if error.status != 404:
                raise


def _parameters(group: Json) -> str:
    return " ".join(f"--{key}={value}" for key, value in sorted(group.get("rayStartParams", {}).items()))
