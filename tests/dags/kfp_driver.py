"""What Kubeflow's driver reads of a compiled pipeline: the order of tasks, the parameters of one, its cache's key.

The rules are those of Kubeflow Pipelines 2.17.0, `backend/src/v2`: `driver/resolve.go` (a parameter is of its declared
type or is refused; `PipelineTaskFinalStatus` holds the state that ML Metadata has of the DAG, and no message),
`driver/cache.go` and `cacheutils/cache.go` (fingerprints), `component/launcher_v2.go` (`addDefaultParams`),
`component/importer_launcher.go` (an importer takes the URIs of object stores alone, and no folder).
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from tests.dags.kfp_objects import Bucket, LauncherError

Json = dict[str, Any]
_TYPES = {
    "NUMBER_DOUBLE": (int, float),
    "NUMBER_INTEGER": (int, float),
    "BOOLEAN": (bool,),
    "LIST": (list,),
    "STRUCT": (dict,),
    "TASK_FINAL_STATUS": (dict,),
}


def in_order(tasks: Json) -> list[tuple[str, Json]]:
    """Tasks, each after those it waits for."""
    done: list[str] = []
    while len(done) < len(tasks):
        ready = [n for n in tasks if n not in done and set(tasks[n].get("dependentTasks", [])) <= set(done)]
        done += sorted(ready)
    return [(name, tasks[name]) for name in done]


def parameters_of(task: Json, values: Json, outputs: Mapping[str, Json], run_id: str, state: str) -> Json:
    """The task's parameters.

    Args:
        task: As it stands in the compiled pipeline.
        values: Parameters of the DAG it is in.
        outputs: What the tasks before it told, by their names.
        run_id: The run's id.
        state: State of the DAG, for a task that is told how that ended.
    """
    found: Json = {}
    for name, source in task.get("inputs", {}).get("parameters", {}).items():
        match source:
            case {"runtimeValue": {"constant": value}}:
                found[name] = value
            case {"componentInputParameter": key}:
                found[name] = values[key]
            case {"taskOutputParameter": {"producerTask": producer, "outputParameterKey": key}}:
                found[name] = outputs[producer]["parameterValues"][key]
            case {"taskFinalStatus": {"producerTask": producer}}:
                # The resource is the Workflow, which has another name than the run.
                status = {"pipelineJobResourceName": f"workflow-{run_id}", "pipelineTaskName": producer, "error": {}}
                found[name] = status | {"state": state}
            case _:
                raise LauncherError(f"parameter spec of {name} not implemented yet: {source}")
    return found


def checked(component: Json, found: Json) -> Json:
    """The parameters as the step gets them: `handleParamTypeValidationAndConversion`, then the component's defaults."""
    defined = component.get("inputDefinitions", {}).get("parameters", {})
    values = dict(found)
    for name, facts in defined.items():
        kind = facts["parameterType"]
        if name not in found:
            if "defaultValue" not in facts and not facts.get("isOptional"):
                raise LauncherError(f"neither value nor default value provided for non-optional parameter {name!r}")
            if "defaultValue" in facts:
                values[name] = facts["defaultValue"]
        elif kind == "STRING" and not isinstance(found[name], str):
            values[name] = json.dumps(found[name])
        elif kind != "STRING" and (
            not isinstance(found[name], _TYPES[kind]) or (kind != "BOOLEAN" and found[name] is True)
        ):
            raise LauncherError(f"input parameter {name!r} type mismatch: expect {kind}, got {found[name]!r}")
    return values


def container_of(component: Json, executors: Json) -> Json:
    """The container of a component; an importer has none, and takes no other URIs than the launcher."""
    executor = executors[component["executorLabel"]]
    if "importer" in executor:
        Bucket.of_root(executor["importer"]["artifactUri"]["constant"])
        raise LauncherError("importers are not played")
    return executor["container"]


def fingerprint(component: Json, container: Json, inputs: Json, outputs: Json, claims: list[Json]) -> str:
    """`GenerateCacheKey`: URIs are wiped, an input artifact counts by its id; claims count by name, once."""
    first = {key: found["artifacts"][0] for key, found in outputs["artifacts"].items()}
    kinds = {key: [item["name"], item["type"], item["metadata"]] for key, item in first.items()}
    names = {key: [item["name"] for item in found["artifacts"]] for key, found in inputs["artifacts"].items()}
    declared = component.get("outputDefinitions", {}).get("parameters", {})
    types = {name: declared[name]["parameterType"] for name in outputs["parameters"]}
    command = [*container["command"], *container["args"]]
    parts = [names, inputs["parameterValues"], kinds, types, container["image"], command]
    parts.append(sorted({claim["constant"] for claim in claims}))
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
