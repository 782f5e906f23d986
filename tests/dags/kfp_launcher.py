"""Kubeflow's driver and launcher for a compiled pipeline, in this process: what they refuse is refused here.

The rules are those of Kubeflow Pipelines 2.17.0: `backend/src/v2/driver/driver.go` (`provisionOutputs`), `container.go`
and `cache.go` (a cache hit starts no pod), `resolve.go` (`PipelineTaskFinalStatus` holds the state that ML Metadata has
of the DAG, and no message), `backend/src/v2/component/launcher_v2.go` (download, run, collect, upload, publish),
`backend/src/v2/metadata/client.go` (`UpdateDAGExecutionsState`: only a launcher moves the DAG's state) and
`converter.go` (a metadata value is a string, a number, a list or a struct). Each step starts with an empty folder for
artifacts, as a pod does. Not played: pods, tasks beside each other, retries, loops and conditions.
"""

import hashlib
import json
import os
import shutil
import types
import uuid
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import yaml
from kfp.dsl import executor
from kfp.dsl.types import artifact_types
from tests.dags.kfp_driver import in_order, parameters_of
from tests.dags.kfp_objects import MOUNTS, Bucket, Buckets, LauncherError, download, local_path, upload

Json = dict[str, Any]
_PREFIXES = {
    "/gcs/": "_GCS_LOCAL_MOUNT_PREFIX",
    "/minio/": "_MINIO_LOCAL_MOUNT_PREFIX",
    "/s3/": "_S3_LOCAL_MOUNT_PREFIX",
}


class Launcher:
    """One back end: its object stores, its ML Metadata and its cache outlive the runs.

    Args:
        package: A compiled pipeline.
        root: Pipeline root, such as `minio://mlpipeline/v2/artifacts`.
        mount: Folder that stands for `/` of the pods, as far as the launcher writes there.
    """

    def __init__(self, package: Path, root: str, mount: Path) -> None:
        documents = list(yaml.load_all(package.read_text(encoding="utf-8"), yaml.CSafeLoader))
        self._pipeline = documents[0]
        self._pod_fields = documents[1]["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
        self._root, self._mount = root, mount
        self.buckets: Buckets = {}
        self.artifacts: list[Json] = []
        self.cache: dict[str, Json] = {}
        self._run_id = ""
        self.states: dict[str, str] = {}
        self.error: Exception | None = None

    def run(self, run_id: str, **parameters: str) -> str:
        """Run it; returns the state that the exit handler was told (ML Metadata's name)."""
        self.states, self.error = {}, None
        given = self._pipeline["root"]["inputDefinitions"]["parameters"]
        values = {name: parameters.get(name, facts.get("defaultValue")) for name, facts in given.items()}
        (_, body), (name, handler) = in_order(self._pipeline["root"]["dag"]["tasks"])
        self._run_id, self._dag_state = run_id, "RUNNING"
        self._dag(self._component(body)["dag"]["tasks"], self._inputs(body, values, {})["parameterValues"])
        state = self._dag_state
        self._task(name, handler, self._inputs(handler, values, {}), [])
        return state

    def plant(self, task: str, parameters: Json, artifacts: dict[str, str]) -> None:
        """Let an earlier run have cached `task`, for these parameters, with artifacts of these URIs."""
        (_, body), _ = in_order(self._pipeline["root"]["dag"]["tasks"])
        component = self._component(self._component(body)["dag"]["tasks"][task])
        container = self._pipeline["deploymentSpec"]["executors"][component["executorLabel"]]["container"]
        outputs = self._provisioned(task, component["outputDefinitions"])
        found = {}
        for name, item in outputs["artifacts"].items():
            self.artifacts.append(item["artifacts"][0] | {"uri": artifacts.get(name, item["artifacts"][0]["uri"])})
            found[name] = self.artifacts[-1] | {"name": str(len(self.artifacts))}
        key = self._fingerprint(component, container, {"parameterValues": parameters, "artifacts": {}}, outputs)
        self.cache[key] = {"parameterValues": {}, "artifacts": found}

    def _component(self, task: Json) -> Json:
        return self._pipeline["components"][task["componentRef"]["name"]]

    def _dag(self, tasks: Json, values: Json) -> None:
        outputs: dict[str, Json] = {}
        for name, task in in_order(tasks):
            found = self._task(name, task, self._inputs(task, values, outputs), list(tasks))
            if found is None:
                return
            outputs[name] = found

    def _inputs(self, task: Json, values: Json, outputs: dict[str, Json]) -> Json:
        parameters = parameters_of(task, values, outputs, self._run_id, self._dag_state)
        artifacts: Json = {}
        for name, source in task.get("inputs", {}).get("artifacts", {}).items():
            place = source["taskOutputArtifact"]
            artifacts[name] = {"artifacts": [outputs[place["producerTask"]]["artifacts"][place["outputArtifactKey"]]]}
        return {"parameterValues": parameters, "artifacts": artifacts}

    def _task(self, name: str, task: Json, inputs: Json, siblings: list[str]) -> Json | None:
        component = self._component(task)
        container = self._pipeline["deploymentSpec"]["executors"][component["executorLabel"]]["container"]
        outputs = self._provisioned(name, component.get("outputDefinitions", {}))
        key = self._fingerprint(component, container, inputs, outputs)
        cached = task.get("cachingOptions", {}).get("enableCache")
        if cached and key in self.cache:
            self.states[name] = "CACHED"
            return self.cache[key]
        try:
            found = self._launch(component, container, inputs, outputs)
            self.states[name] = "COMPLETE"
            if cached:
                self.cache[key] = found
        except Exception as error:  # noqa: BLE001 - whatever a step raises fails it
            self.error, found = error, None
            self.states[name] = "FAILED"
        mine = [self.states.get(sibling, "") for sibling in siblings]
        if mine and all(state in ("COMPLETE", "CACHED") for state in mine):
            self._dag_state = "COMPLETE"
        elif "FAILED" in mine:
            self._dag_state = "FAILED"
        return found

    def _provisioned(self, name: str, defined: Json) -> Json:
        """`provisionOutputs`: a URI of its own below the pipeline root for each artifact."""
        place = (
            f"{self._root.rstrip('/')}/{self._pipeline['pipelineInfo']['name']}/{self._run_id}/{name}/{uuid.uuid4()}"
        )
        artifacts = {
            key: {"artifacts": [{"name": key, "uri": f"{place}/{key}", "type": kind["artifactType"], "metadata": {}}]}
            for key, kind in defined.get("artifacts", {}).items()
        }
        folder = local_path(place, self._mount)
        assert folder, self._root
        parameters = {key: {"outputFile": str(folder / f"{key}.txt")} for key in defined.get("parameters", {})}
        return {
            "artifacts": artifacts,
            "parameters": parameters,
            "outputFile": str(folder / "output_metadata.json"),
        }

    def _fingerprint(self, component: Json, container: Json, inputs: Json, outputs: Json) -> str:
        """`GenerateCacheKey`: URIs are wiped, an input artifact counts by its id; claims count by name."""
        kinds = {
            key: [item["name"], item["type"]]
            for key, found in outputs["artifacts"].items()
            for item in found["artifacts"]
        }
        names = {key: [item["name"] for item in found["artifacts"]] for key, found in inputs["artifacts"].items()}
        claims = self._pod_fields.get(component["executorLabel"], {}).get("pvcMount", [])
        parts = [names, inputs["parameterValues"], kinds, sorted(outputs["parameters"]), container["image"]]
        parts += [container["command"], container["args"], sorted({claim["constant"] for claim in claims})]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

    def _launch(self, component: Json, container: Json, inputs: Json, outputs: Json) -> Json:
        """`Execute`: a pod's life."""
        shutil.rmtree(self._mount, ignore_errors=True)
        bucket = Bucket.of_root(self._root)
        for found in inputs["artifacts"].values():
            self._download(bucket, found["artifacts"][0]["uri"])
        with self._as_pod(component, container):
            written = _execute(container, {"inputs": inputs, "outputs": outputs})
        told = json.loads(Path(written).read_text(encoding="utf-8"), parse_constant=_no_number) if written else {}
        parameters = told.get("parameterValues", {})
        for name, place in outputs["parameters"].items():
            if name not in parameters:
                parameters[name] = Path(place["outputFile"]).read_text(encoding="utf-8")
        return {"parameterValues": parameters, "artifacts": self._uploaded(bucket, outputs, told.get("artifacts", {}))}

    def _download(self, root: Bucket, uri: str) -> None:
        bucket = root if uri.startswith(root.prefixed) else Bucket.of_artifact(uri)
        local = local_path(uri, self._mount)
        if local is not None:
            download(self.buckets, bucket, local, bucket.key(uri))

    def _uploaded(self, bucket: Bucket, outputs: Json, told: Json) -> Json:
        """`uploadOutputArtifacts`: the step's word on URI and metadata goes before the driver's; then the upload."""
        recorded: Json = {}
        for name, found in outputs["artifacts"].items():
            artifact = found["artifacts"][0]
            said = told.get(name, {"artifacts": [{}]})["artifacts"][0]
            artifact["uri"] = said.get("uri") or artifact["uri"]
            artifact["metadata"] = artifact["metadata"] | said.get("metadata", {})
            local = local_path(artifact["uri"], self._mount)
            if local is not None:
                key = bucket.key(artifact["uri"])
                if local.exists():
                    upload(self.buckets, bucket, local, key)
            if None in artifact["metadata"].values():
                raise LauncherError(
                    f'unable to produce MLMD artifact for output "{name}": unknown/unsupported value type'
                )
            self.artifacts.append(artifact)
            recorded[name] = artifact | {"name": str(len(self.artifacts))}
        return recorded

    @contextmanager
    def _as_pod(self, component: Json, container: Json):
        """The environment of the container, and the mount points of this back end."""
        fields = self._pod_fields.get(component["executorLabel"], {}).get("fieldPathAsEnv", [])
        known = {"metadata.labels['pipeline/runid']": self._run_id}
        variables = {item["name"]: item["value"] for item in container.get("env", [])}
        variables |= {item["name"]: known.get(item["fieldPath"], "") for item in fields}
        with (
            mock.patch.dict(os.environ, variables),
            mock.patch.multiple(
                artifact_types, **{_PREFIXES[place]: f"{self._mount}{place}" for place in MOUNTS.values()}
            ),
        ):
            yield


def _execute(container: Json, message: Json) -> str | None:
    """What `kfp.dsl.executor_main` does with the source that stands in the compiled command."""
    code = types.ModuleType("ephemeral_component")
    exec(compile(container["command"][-1], "ephemeral_component.py", "exec"), code.__dict__)
    name = container["args"][container["args"].index("--function_to_execute") + 1]
    return executor.Executor(json.loads(json.dumps(message)), getattr(code, name)).execute()


def _no_number(word: str) -> None:
    raise LauncherError(f"failed to unmarshall ExecutorOutput: {word} is no JSON")
