"""What Kubeflow's driver reads of a compiled pipeline: the order of tasks and the parameters of one.

The rules are those of Kubeflow Pipelines 2.17.0, `backend/src/v2/driver/resolve.go`: `PipelineTaskFinalStatus` holds
the state that ML Metadata has of the DAG, and no message.
"""

from collections.abc import Mapping
from typing import Any

Json = dict[str, Any]


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
                status = {"pipelineJobResourceName": run_id, "pipelineTaskName": producer, "error": {}}
                found[name] = status | {"state": state}
    return found
