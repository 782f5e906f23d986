"""`qwenops submit --wait`: a run on Kubeflow to its end, a line a step, and what came of it.

Kubeflow's API lists every node of Argo's under its shown name alone (three a step, most of them called "executor"), so
which steps were cached and why one failed stands only in the run's Workflow, which its older API hands out. Without
that one the states are known, not the reasons.
"""

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import kfp_server_api

from qwenops.errors import PlatformError, StageError
from qwenops.platform.kubernetes.workflow import State, Step, first_failure, is_terminated, read_steps
from qwenops_pipelines.kubeflow import silence_client, translate_errors
from qwenops_pipelines.versions import Package

GATE_FAILED = 6
"""Exit status of `qwenops submit --wait` when the evaluation gate did not pass."""
_POLL_SECONDS = 10.0
_ENDED = ("SUCCEEDED", "FAILED", "CANCELED", "SKIPPED")
_GATE_STEP = "enforce-gate"
_STATES: Mapping[str, State] = {"SUCCEEDED": "succeeded", "FAILED": "failed", "RUNNING": "running"}
_NO_SUCH_API = (404, 405, 501)


def wait(
    client: Any, host: str, run_id: str, package: Package, timeout_seconds: float, summary: Path | None = None
) -> int:
    """Follow a run to its end, a line per step that ends; returns the exit status.

    Args:
        client: From `submit`.
        host: For messages.
        run_id: The run.
        package: What runs.
        timeout_seconds: When to give up waiting; the run goes on.
        summary: File to which a Markdown summary is appended, such as `$GITHUB_STEP_SUMMARY`.

    Raises:
        StageError: the run failed.
        PlatformError: it was stopped, or did not end in time.
    """
    deadline = time.monotonic() + timeout_seconds
    shown: dict[str, Step] = {}
    while True:
        with translate_errors(host), silence_client():
            run = client.get_run(run_id)
            workflow = _workflow(client, run_id)
        steps = read_steps(workflow) if workflow else _listed(run, package)
        for name, step in steps.items():
            if step.state != "running" and shown.get(name) != step:
                print(f"{name:<24} {step.state:<10} {step.message}".rstrip(), flush=True)
                shown[name] = step
        if str(run.state) in _ENDED:
            break
        if time.monotonic() > deadline:
            raise PlatformError(
                f"the run {run_id} did not end in time",
                expected=f"an end within {timeout_seconds:.0f} seconds",
                found=f"state {run.state}",
                action="raise --timeout, or watch it in the UI; it goes on running",
            )
        time.sleep(_POLL_SECONDS)
    if summary is not None:
        with summary.open("a", encoding="utf-8") as stream:
            stream.write(_markdown(run, steps, host))
    return _outcome(run, steps, stopped=str(run.state) == "CANCELED" or is_terminated(workflow))


def link(host: str, run_id: str) -> str:
    """Address of the run's page in the UI."""
    return f"{host.rstrip('/') or '/pipeline'}/#/runs/details/{run_id}"


def _workflow(client: Any, run_id: str) -> dict[str, Any]:
    """The run's Argo Workflow; empty before Kubeflow has reported it, and where the older API is not served."""
    api = client._run_api.api_client
    place = "/apis/v1beta1/runs/{run_id}"
    options = {"response_type": "object", "auth_settings": ["Bearer"], "_return_http_data_only": True}
    try:
        found = api.call_api(place, "GET", {"run_id": run_id}, [], {"Accept": "application/json"}, **options)
    except kfp_server_api.ApiException as error:
        if error.status not in _NO_SUCH_API:
            raise
        return {}
    return json.loads(found.get("pipeline_runtime", {}).get("workflow_manifest") or "{}")


def _listed(run: Any, package: Package) -> dict[str, Step]:
    """The steps among the nodes that the present API lists."""
    details = (run.run_details.task_details if run.run_details else None) or []
    known = [(task.display_name, str(task.state)) for task in details if task.display_name in package.steps]
    return {name: Step(_STATES[state]) for name, state in known if state in _STATES}


def _outcome(run: Any, steps: Mapping[str, Step], *, stopped: bool) -> int:
    if str(run.state) == "SUCCEEDED":
        return 0
    first = first_failure(dict(steps))
    # Kubeflow calls a run that was terminated a failed one.
    if stopped:
        raise PlatformError(
            f"the run {run.run_id} was stopped",
            expected="SUCCEEDED",
            found=run.state,
            action="start it again; finished stages are reused",
        )
    if first is not None and first[0] == _GATE_STEP:
        print("the evaluation gate did not pass; see the summary of the register step")
        return GATE_FAILED
    raise StageError(
        f"the run {run.run_id} failed",
        expected="every step to succeed",
        found=f"failed: {_told(*first)}" if first else str(run.error or "no step says why"),
        action="open the step's log in the UI, or the run's run.json; finished stages are reused by the next run",
    )


def _told(name: str, step: Step) -> str:
    return f"{name} ({step.message})" if step.message else name


def _markdown(run: Any, steps: Mapping[str, Step], host: str) -> str:
    lines = [f"## {run.display_name}: {str(run.state).lower()}", "", f"[Run]({link(host, run.run_id)})", ""]
    lines += ["| step | state | |", "|---|---|---|"]
    # A message may hold lines and bars, which would end a cell.
    told = {name: " ".join(step.message.replace("|", "\\|").split()) for name, step in steps.items()}
    lines += [f"| {name} | {step.state} | {told[name]} |" for name, step in steps.items()]
    return "\n".join(lines) + "\n"
