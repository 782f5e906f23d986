"""KubeRay and the garbage collector, played through the API where neither runs.

A script is a list of steps for one RayJob: a dictionary is written to its status, a callable is called with its
name. Foreground deletion needs a collector to take the last finalizer away; the double does that as well. Where KubeRay
runs, it leaves the jobs of `UnmindedKube` to the double.
"""

import threading
import time

from kubernetes import client
from kubernetes.client.rest import ApiException
from urllib3.exceptions import HTTPError

from qwenops.platform.kubernetes.client import Json, Kube

_PLACE = ("ray.io", "v1")
_BLIP = (HTTPError, OSError)


class UnmindedKube(Kube):
    """The launcher's client, whose RayJobs name another controller than KubeRay; Kueue's is the only other allowed."""

    def create_job(self, manifest: Json) -> bool:
        """Create a RayJob that KubeRay does not look at."""
        manifest["spec"]["managedBy"] = "kueue.x-k8s.io/multikueue"
        return super().create_job(manifest)


class OperatorDouble(threading.Thread):
    """Watches one namespace by polling and plays the next script to each new RayJob."""

    def __init__(self, api: client.ApiClient, namespace: str, *scripts: list) -> None:
        super().__init__(daemon=True)
        self._objects = client.CustomObjectsApi(api)
        self._namespace = namespace
        self.scripts = list(scripts)
        self.seen: list[str] = []
        self._players: list[threading.Thread] = []
        self._stopped = threading.Event()

    def __enter__(self) -> "OperatorDouble":
        self.start()
        return self

    def __exit__(self, *_) -> None:
        self._stopped.set()
        self.join(10)

    def run(self) -> None:
        while not self._stopped.wait(0.1):
            try:
                for job in self.jobs():
                    self._mind(job)
            except (*_BLIP, ApiException):
                # The server restarts in some tests.
                continue

    def jobs(self) -> list[dict]:
        """RayJobs of the namespace."""
        return self._objects.list_namespaced_custom_object(*_PLACE, self._namespace, "rayjobs")["items"]

    def status(self, name: str, **status) -> None:
        """Write status fields, again and again while the server is away."""
        for _ in range(100):
            if self._write(name, status):
                return
            time.sleep(0.2)

    def _write(self, name: str, status: dict) -> bool:
        body = {"status": status}
        try:
            self._objects.patch_namespaced_custom_object_status(*_PLACE, self._namespace, "rayjobs", name, body)
        except ApiException as error:
            return error.status == 404
        except _BLIP:
            return False
        return True

    def _mind(self, job: dict) -> None:
        name = job["metadata"]["name"]
        if job["metadata"].get("deletionTimestamp"):
            if job["metadata"].get("finalizers"):
                body = {"metadata": {"finalizers": None}}
                self._objects.patch_namespaced_custom_object(*_PLACE, self._namespace, "rayjobs", name, body)
        elif name not in self.seen:
            self.seen.append(name)
            if self.scripts:
                player = threading.Thread(target=self._play, args=(name, self.scripts.pop(0)), daemon=True)
                player.start()
                self._players.append(player)

    def _play(self, name: str, script: list) -> None:
        for step in script:
            if callable(step):
                step(name)
            else:
                self.status(name, **step)
            time.sleep(0.15)
