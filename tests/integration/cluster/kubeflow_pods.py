"""Kubeflow's part with real pods, for a cluster without it: runs a compiled pipeline task by task.

Every task becomes a pod with the command, image, environment, resources, claims and pod fields that stand in the
compiled file, and the executor input that Kubeflow's driver would compose. Artifacts lie in a folder that pods and this
process share. The state that the exit handler is told is ML Metadata's (`backend/src/v2/driver/resolve.go`), without a
message. Not played: caching, retries and tasks beside each other; loops and conditions, of which we have none; the
launcher's rules on URIs, which `tests/dags/kfp_launcher.py` holds.
"""

import json
import time
from pathlib import Path
from typing import Any

import yaml
from kubernetes import client
from tests.dags.kfp_driver import in_order, parameters_of

_SECONDS = 1800
_RUN_LABEL = "pipeline/runid"

Json = dict[str, Any]


class PipelineOnPods:
    """One run of a compiled pipeline.

    Args:
        api: The cluster.
        namespace: Where the pods start.
        package: A compiled pipeline.
        root: Folder for KFP's own artifacts, mounted into every pod under the same path.
        account: Service account of the steps.
    """

    def __init__(self, api: client.ApiClient, namespace: str, package: Path, root: Path, account: str) -> None:
        self._core, self._namespace, self._root, self._account = client.CoreV1Api(api), namespace, root, account
        documents = list(yaml.load_all(package.read_text(encoding="utf-8"), yaml.CSafeLoader))
        self._pipeline, platform = documents[0], documents[1]
        self._pod_fields = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
        self.states: dict[str, str] = {}

    def run(self, run_id: str, **parameters: str) -> str:
        """Run it; returns COMPLETE or FAILED, the state of everything before the exit handler."""
        self._run_id = run_id
        given = self._pipeline["root"]["inputDefinitions"]["parameters"]
        values = {name: parameters.get(name, facts.get("defaultValue")) for name, facts in given.items()}
        # Two tasks: the DAG, and the exit handler that follows it whatever its end.
        (_, body), (name, handler) = in_order(self._pipeline["root"]["dag"]["tasks"])
        state = self._dag(self._component(body)["dag"]["tasks"], self._inputs(body, values)["parameterValues"])
        self._task(name, self._component(handler), self._inputs(handler, values, state=state))
        return state

    def _component(self, task: Json) -> Json:
        return self._pipeline["components"][task["componentRef"]["name"]]

    def _dag(self, tasks: Json, values: Json) -> str:
        outputs: dict[str, Json] = {}
        for name, task in in_order(tasks):
            outputs[name] = self._task(name, self._component(task), self._inputs(task, values, outputs))
            if self.states[name] != "Succeeded":
                return "FAILED"
        return "COMPLETE"

    def _inputs(self, task: Json, values: Json, outputs: Json | None = None, state: str = "") -> Json:
        outputs = outputs or {}
        parameters = parameters_of(task, values, outputs, self._run_id, state)
        artifacts: Json = {}
        for name, source in task.get("inputs", {}).get("artifacts", {}).items():
            place = source["taskOutputArtifact"]
            artifacts[name] = outputs[place["producerTask"]]["artifacts"][place["outputArtifactKey"]]
        return {"parameterValues": parameters, "artifacts": artifacts}

    def _task(self, name: str, component: Json, inputs: Json) -> Json:
        folder = self._root / self._run_id / name
        folder.mkdir(parents=True)
        defined = component.get("outputDefinitions", {})
        outputs: Json = {
            "outputFile": str(folder / "executor_output.json"),
            "parameters": {key: {"outputFile": str(folder / key)} for key in defined.get("parameters", {})},
            "artifacts": {
                key: {
                    "artifacts": [{"name": key, "type": kind["artifactType"], "uri": str(folder / key), "metadata": {}}]
                }
                for key, kind in defined.get("artifacts", {}).items()
            },
        }
        label = component["executorLabel"]
        container = self._pipeline["deploymentSpec"]["executors"][label]["container"]
        message = json.dumps({"inputs": inputs, "outputs": outputs})
        pod = self._pod(name, container, self._pod_fields.get(label, {}), message)
        self._core.create_namespaced_pod(self._namespace, pod)
        self.states[name] = self._wait(pod["metadata"]["name"])
        (folder / "step.log").write_text(self._core.read_namespaced_pod_log(pod["metadata"]["name"], self._namespace))
        written = Path(outputs["outputFile"])
        told = json.loads(written.read_text(encoding="utf-8")) if written.is_file() else {}
        found = outputs["artifacts"] | told.get("artifacts", {})
        return {"parameterValues": told.get("parameterValues", {}), "artifacts": found}

    def _pod(self, name: str, container: Json, fields: Json, message: str) -> Json:
        resources = container.get("resources", {})
        wanted = {"cpu": resources.get("resourceCpuRequest"), "memory": resources.get("resourceMemoryRequest")}
        volumes: list[Json] = [{"name": "kfp", "hostPath": {"path": str(self._root)}}]
        mounts: list[Json] = [{"name": "kfp", "mountPath": str(self._root)}]
        for number, claim in enumerate(fields.get("pvcMount", [])):
            volumes.append({"name": f"claim-{number}", "persistentVolumeClaim": {"claimName": claim["constant"]}})
            mounts.append({"name": f"claim-{number}", "mountPath": claim["mountPath"]})
        variables = list(container.get("env", []))
        for field in fields.get("fieldPathAsEnv", []):
            variables.append({"name": field["name"], "valueFrom": {"fieldRef": {"fieldPath": field["fieldPath"]}}})
        return {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                "name": f"{self._run_id}-{name}",
                "labels": {_RUN_LABEL: self._run_id, "app.kubernetes.io/part-of": "qwenops"},
            },
            "spec": {
                "restartPolicy": "Never",
                "serviceAccountName": self._account,
                "volumes": volumes,
                "containers": [
                    {
                        "name": "main",
                        "image": container["image"],
                        "imagePullPolicy": fields.get("imagePullPolicy", "IfNotPresent"),
                        "command": container["command"],
                        "args": [message if item == "{{$}}" else item for item in container["args"]],
                        "env": variables,
                        "resources": {"requests": {key: value for key, value in wanted.items() if value}},
                        "volumeMounts": mounts,
                    }
                ],
            },
        }

    def _wait(self, pod: str) -> str:
        deadline = time.monotonic() + _SECONDS
        while (phase := self._core.read_namespaced_pod(pod, self._namespace).status.phase) in ("Pending", "Running"):
            assert time.monotonic() < deadline, f"{pod} is still {phase}"
            time.sleep(0.5)
        return phase
