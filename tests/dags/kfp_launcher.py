"""Kubeflow's driver and launcher for a compiled pipeline, in this process: what they refuse is refused here.

The rules are those of Kubeflow Pipelines 2.17.0, `backend/src/v2`: `driver/root_dag.go` and `metadata/client.go`
(`GetPipeline`, `GenerateOutputURI`: each run has a pipeline root of its own, below which alone its steps may write),
`driver/driver.go` (`provisionOutputs`), `driver/container.go` and `cache.go` (a cache hit starts no pod and moves no
state), `component/launcher_v2.go` (download, run, collect, upload, publish; an upload is tried twice, and of a step
that failed nothing is kept), `metadata/client.go` (`UpdateDAGExecutionsState`: only a launcher moves the DAG's state).
`kfp_driver`, `kfp_messages` and `kfp_objects` hold the rules on inputs, messages and URIs. Each step starts with an
empty folder for artifacts, as a pod does. Not played: pods, tasks beside each other, retries, loops and conditions.
"""

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
from tests.dags.kfp_driver import checked, container_of, fingerprint, in_order, parameters_of
from tests.dags.kfp_messages import executor_input, executor_output, parameter_value, recorded
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
        self._executors = self._pipeline["deploymentSpec"]["executors"]
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
        outputs = self._provisioned(task, component["outputDefinitions"])
        found = {}
        for name, item in outputs["artifacts"].items():
            made = item["artifacts"][0] | {"uri": artifacts.get(name, item["artifacts"][0]["uri"])}
            found[name] = self._kept(name, made)
        key = self._key(component, {"parameterValues": parameters, "artifacts": {}}, outputs)
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
        try:
            inputs = inputs | {"parameterValues": checked(component, inputs["parameterValues"])}
            outputs = self._provisioned(name, component.get("outputDefinitions", {}))
            key = self._key(component, inputs, outputs)
            cached = task.get("cachingOptions", {}).get("enableCache")
            if cached and key in self.cache:
                self.states[name] = "CACHED"
                return self.cache[key]
            found = self._launch(component, inputs, outputs)
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

    @property
    def _run_root(self) -> str:
        """The pipeline root of this run, with the root's query."""
        place, _, query = self._root.partition("?")
        mine = f"{place.rstrip('/')}/{self._pipeline['pipelineInfo']['name']}/{self._run_id}"
        return f"{mine}?{query}" if query else mine

    def _provisioned(self, name: str, defined: Json) -> Json:
        """`provisionOutputs`: a URI of its own below the run's pipeline root for each artifact, without its query."""
        place = f"{self._run_root.partition('?')[0]}/{name}/{uuid.uuid4()}"
        artifacts = {
            key: {
                "artifacts": [
                    {"name": key, "uri": f"{place}/{key}", "type": kind["artifactType"]}
                    | {"metadata": kind.get("metadata", {})}
                ]
            }
            for key, kind in defined.get("artifacts", {}).items()
        }
        folder = local_path(place, self._mount)
        if folder is None:
            # `prepareOutputFolders`.
            raise LauncherError(f"failed to generate local path for URI {place}: unsupported storage scheme")
        parameters = {
            key: {"outputFile": str(self._mount / "tmp/kfp/outputs" / key)} for key in defined.get("parameters", {})
        }
        return {
            "artifacts": artifacts,
            "parameters": parameters,
            "outputFile": str(folder / "output_metadata.json"),
        }

    def _key(self, component: Json, inputs: Json, outputs: Json) -> str:
        claims = self._pod_fields.get(component["executorLabel"], {}).get("pvcMount", [])
        return fingerprint(component, container_of(component, self._executors), inputs, outputs, claims)

    def _launch(self, component: Json, inputs: Json, outputs: Json) -> Json:
        """`Execute`: a pod's life."""
        shutil.rmtree(self._mount, ignore_errors=True)
        message, container = executor_input({"inputs": inputs, "outputs": outputs}), self._container(component)
        bucket = Bucket.of_root(self._run_root)
        # All buckets are opened before the first artifact is fetched: `fetchNonDefaultBuckets`.
        named = [artifact["uri"] for found in inputs["artifacts"].values() for artifact in found["artifacts"]]
        places = [(uri, bucket if uri.startswith(bucket.prefixed) else Bucket.of_artifact(uri)) for uri in named]
        for uri, place in places:
            local = local_path(uri, self._mount)
            if local is not None:
                download(self.buckets, place, local, place.key(uri))
        for item in outputs["parameters"].values():
            Path(item["outputFile"]).parent.mkdir(parents=True, exist_ok=True)
        with self._as_pod(component, container):
            _execute(container, message)
        written = Path(outputs["outputFile"])
        told = executor_output(written.read_text(encoding="utf-8")) if written.is_file() else {}
        parameters = told.get("parameterValues", {})
        declared = component.get("outputDefinitions", {}).get("parameters", {})
        for name, place in outputs["parameters"].items():
            if name not in parameters:
                text = Path(place["outputFile"]).read_text(encoding="utf-8")
                parameters[name] = parameter_value(text, declared[name]["parameterType"])
        return {"parameterValues": parameters, "artifacts": self._uploaded(bucket, outputs, told.get("artifacts", {}))}

    def _container(self, component: Json) -> Json:
        return container_of(component, self._executors)

    def _uploaded(self, bucket: Bucket, outputs: Json, told: Json) -> Json:
        """`uploadOutputArtifacts`: the step's word on URI, path and metadata goes before the driver's; the upload."""
        kept: Json = {}
        for name, found in outputs["artifacts"].items():
            said = told.get(name, {}).get("artifacts") or [{}]
            artifact = found["artifacts"][0] | {"uri": said[0].get("uri") or found["artifacts"][0]["uri"]}
            artifact["metadata"] = artifact["metadata"] | said[0].get("metadata", {})
            custom = said[0].get("customPath")
            local = Path(custom) if custom else local_path(artifact["uri"], self._mount)
            if local is not None:
                key = bucket.key(artifact["uri"])
                if local.exists():
                    upload(self.buckets, bucket, local, key)
            kept[name] = self._kept(name, artifact)
        return kept

    def _kept(self, name: str, artifact: Json) -> Json:
        """`RecordArtifact`: from now on the artifact is called by its id."""
        self.artifacts.append(recorded(name, artifact))
        return self.artifacts[-1] | {"name": str(len(self.artifacts))}

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


def _execute(container: Json, message: Json) -> None:
    """What `kfp.dsl.executor_main` does with the source that stands in the compiled command."""
    code = types.ModuleType("ephemeral_component")
    exec(compile(container["command"][-1], "ephemeral_component.py", "exec"), code.__dict__)
    name = container["args"][container["args"].index("--function_to_execute") + 1]
    executor.Executor(message, getattr(code, name)).execute()
