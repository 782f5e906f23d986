"""The Argo Workflow of a run of Kubeflow, node by node, as its API server and Kubernetes hand it out.

Which nodes a step has is read from Kubeflow Pipelines 2.17.0, `backend/src/v2/compiler/argocompiler/dag.go` and
`container.go` (a driver, a DAG of the task's name, `executor` in it, skipped where the step was cached; the exit
handler as a hook of the DAG before it); names, ids, phases and messages from Argo Workflows 4.0.5,
`workflow/controller/dag.go` (omitted and skipped nodes), `operator.go` (`executeTemplate`: retries;
`inferFailedReason`: messages), `exit_handler.go` and `workflow/packer/packer.go` (compressed nodes); what Kubeflow's
API makes of them from `backend/src/apiserver/server/api_converter.go` (`toModelTask`, `toApiPipelineTaskDetail`) and
`model/run.go` (`ToV2`).
"""

import base64
import gzip
import itertools
import json

_DAG, _LAST = "exit-handler-1", "finish-run"
_PHASES = {
    "succeeded": "Succeeded",
    "cached": "Succeeded",
    "failed": "Failed",
    "driver": "Failed",
    "running": "Running",
    "omitted": "Omitted",
}
_TO_API = {"Skipped": "SKIPPED", "Failed": "FAILED", "Error": "FAILED", "Succeeded": "SUCCEEDED", "Running": "RUNNING"}


def workflow(name, steps, *, attempts=0, terminated=False, compressed=False):
    """The Workflow `name`.

    `steps` is step name to one of `_PHASES`, or to that and the pod's message; "driver": Kubeflow's driver failed. A
    step has a `Retry` where `attempts` is not 0: all but the last of that many pods failed.
    """
    clock = (f"2026-01-01T00:{minute:02d}:{second:02d}Z" for minute, second in itertools.product(range(60), range(60)))
    nodes = {}

    def add(path, kind, template, phase, boundary="", message="", began=""):
        key = f"{name}-{_fnv32a(path)}"
        node = {"id": key, "name": path, "displayName": path.rsplit(".", 1)[-1], "type": kind, "phase": phase}
        node |= {"templateName": template, "boundaryID": boundary, "startedAt": began or next(clock)}
        node |= {"finishedAt": None if phase == "Running" else next(clock)} | ({"message": message} if message else {})
        nodes[key] = node
        return key

    def step(inside, boundary, task, state, message=""):
        kind = "retry-system-container" if attempts else "system-container"
        driver = "Failed" if state == "driver" else "Succeeded"
        add(
            f"{inside}.{task}-driver", "Pod", "system-container-driver", driver, boundary, message * (state == "driver")
        )
        if state in ("driver", "omitted"):
            add(
                f"{inside}.{task}",
                "Skipped",
                f"{kind}-executor",
                "Omitted",
                boundary,
                "omitted: depends condition not met",
            )
            return
        began, path = next(clock), f"{inside}.{task}"
        mine = f"{name}-{_fnv32a(path)}"
        if state == "cached":
            add(f"{path}.executor", "Skipped", f"{kind}-impl", "Skipped", mine, "when 'true != true' evaluated false")
        elif attempts:
            add(
                f"{path}.executor",
                "Retry",
                f"{kind}-impl",
                _PHASES[state],
                mine,
                "No more retries left" * (state == "failed"),
            )
            for attempt in range(attempts):
                last = attempt == attempts - 1
                lost = ("Error", "pod deleted") if not last else (_PHASES[state], message)
                add(f"{path}.executor({attempt})", "Pod", f"{kind}-impl", lost[0], mine, lost[1])
        else:
            add(f"{path}.executor", "Pod", f"{kind}-impl", _PHASES[state], mine, message)
        add(path, "DAG", f"{kind}-executor", _PHASES[state], boundary, began=began)

    given = {task: (state, "") if isinstance(state, str) else state for task, state in steps.items()}
    inner = {task: state for task, state in given.items() if task != _LAST}
    bad = any(state in ("failed", "driver") for state, _ in inner.values())
    going = any(state == "running" for state, _ in inner.values())
    whole = "Failed" if bad else "Running" if going else "Succeeded"
    top = add(name, "DAG", "entrypoint", whole)
    add(f"{name}.root-driver", "Pod", "system-dag-driver", "Succeeded", top)
    root = add(f"{name}.root", "DAG", "root", whole, top)
    add(f"{name}.root.{_DAG}-driver", "Pod", "system-dag-driver", "Succeeded", root)
    dag = add(f"{name}.root.{_DAG}", "DAG", "comp-exit-handler-1", whole, root)
    for task, (state, message) in inner.items():
        step(f"{name}.root.{_DAG}", dag, task, state, message)
    if _LAST in given:
        hook = add(f"{name}.root.{_DAG}.onExit", "DAG", f"exit-hook-root-{_LAST}", "Running", root)
        step(f"{name}.root.{_DAG}.onExit", hook, _LAST, *given[_LAST])
    spec = {"activeDeadlineSeconds": 0} if terminated else {}
    status = {"phase": whole, "nodes": nodes}
    if compressed:
        status = {
            "phase": whole,
            "compressedNodes": base64.b64encode(gzip.compress(json.dumps(nodes).encode())).decode(),
        }
    meta = {"name": name, "namespace": "team", "uid": f"uid-{name}"}
    return {"apiVersion": "argoproj.io/v1alpha1", "kind": "Workflow", "metadata": meta, "spec": spec, "status": status}


def task_details(found):
    """`run_details.task_details` of Kubeflow's API: every node of Argo's, under its shown name alone, by its id."""
    nodes = found["status"].get("nodes", {})
    return [
        {"task_id": f"task-{key}", "display_name": node["displayName"], "state": _TO_API.get(node["phase"], "")}
        for key, node in sorted(nodes.items())
    ]


def _fnv32a(text):
    """Argo's ids end in this hash of a node's name (`NodeID` of its `workflow_types.go`)."""
    value = 0x811C9DC5
    for byte in text.encode():
        value = (value ^ byte) * 0x01000193 % 2**32
    return value
