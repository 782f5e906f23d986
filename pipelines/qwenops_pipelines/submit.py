"""`qwenops submit` and `qwenops schedule`: a compiled pipeline to a run, a recurring run, its outcome.

A recurring run names no version, so it follows the newest one. Recurring runs cannot be changed: one that differs is
created anew, then the old one deleted.
"""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import kfp_server_api

from qwenops.errors import PlatformError, RecipeError, StageError
from qwenops_pipelines.kubeflow import connect, quiet, translate_errors
from qwenops_pipelines.versions import EXPERIMENT, Package, Target, get_or_create, upload

# The client's own annotations call every field of every object optional.
_API: Any = kfp_server_api

GATE_FAILED = 6
"""Exit status of `qwenops submit --wait` when the evaluation gate did not pass."""
_POLL_SECONDS = 10.0
_ENDED = ("SUCCEEDED", "FAILED", "CANCELED", "SKIPPED")
_GATE_STEP = "enforce-gate"
_PAGE = 100


def submit(target: Target, package: Package, parameters: Mapping[str, str], run_name: str) -> tuple[Any, str]:
    """Upload the package where its version is new, start a run; returns the client and the run's id.

    Raises:
        RecipeError: a parameter that the pipeline's form does not have.
        PlatformError: Kubeflow cannot be reached or refuses.
    """
    _check_form(package, parameters)
    client = connect(target.host, target.namespace)
    with translate_errors(target.host), quiet():
        experiment = _experiment(client, target)
        pipeline_id, version_id = upload(client, target, package)
        run = client.run_pipeline(
            experiment,
            run_name,
            params=dict(parameters),
            pipeline_id=pipeline_id,
            version_id=version_id,
            service_account=target.service_account or None,
        )
    return client, run.run_id


def schedule(target: Target, package: Package, parameters: Mapping[str, str], name: str, cron: str) -> tuple[str, str]:
    """Create the recurring run `name`, or replace one that differs; returns its id and "created", "replaced" or "kept".

    Raises:
        RecipeError: a parameter that the pipeline's form does not have, or a cron expression of another form.
        PlatformError: Kubeflow cannot be reached or refuses.
    """
    _check_form(package, parameters)
    if len(cron.split()) != 6:
        raise RecipeError(
            "bad --cron",
            expected="six fields: second minute hour day month weekday, for example 0 0 3 * * 1",
            found=cron,
            action="put the seconds in front",
        )
    client = connect(target.host, target.namespace)
    with translate_errors(target.host), quiet():
        experiment = _experiment(client, target)
        pipeline_id, _ = upload(client, target, package)
        wanted = _API.V2beta1RecurringRun(
            display_name=name,
            experiment_id=experiment,
            pipeline_version_reference=_API.V2beta1PipelineVersionReference(pipeline_id=pipeline_id),
            runtime_config=_API.V2beta1RuntimeConfig(parameters=dict(parameters)),
            trigger=_API.V2beta1Trigger(cron_schedule=_API.V2beta1CronSchedule(cron=cron)),
            mode=_API.RecurringRunMode.ENABLE,
            max_concurrency="1",
            no_catchup=True,
            service_account=target.service_account or None,
        )
        listed = client.list_recurring_runs(experiment_id=experiment, page_size=_PAGE).recurring_runs or []
        old = [run for run in listed if run.display_name == name]
        if len(old) == 1 and _identity(old[0]) == _identity(wanted):
            return old[0].recurring_run_id, "kept"
        made = client._recurring_run_api.recurring_run_service_create_recurring_run(recurring_run=wanted)
        for run in old:
            client.delete_recurring_run(run.recurring_run_id)
    return made.recurring_run_id, "replaced" if old else "created"


def wait(client: Any, host: str, run_id: str, timeout_seconds: float, summary: Path | None = None) -> int:
    """Follow a run to its end, a line per step that ends; returns the exit status.

    Args:
        client: From `submit`.
        host: For messages.
        run_id: The run.
        timeout_seconds: When to give up waiting; the run goes on.
        summary: File to which a Markdown summary is appended, such as `$GITHUB_STEP_SUMMARY`.

    Raises:
        StageError: the run failed.
        PlatformError: it was cancelled, or did not end in time.
    """
    deadline = time.monotonic() + timeout_seconds
    shown: dict[str, str] = {}
    while True:
        with translate_errors(host), quiet():
            run = client.get_run(run_id)
        steps = _steps(run)
        for name, state in steps.items():
            if state in _ENDED and shown.get(name) != state:
                print(f"{name:<24} {state.lower()}", flush=True)
                shown[name] = state
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
    return _outcome(run, steps)


def link(host: str, run_id: str) -> str:
    """Address of the run's page in the UI."""
    return f"{host.rstrip('/') or '/pipeline'}/#/runs/details/{run_id}"


def _outcome(run: Any, steps: Mapping[str, str]) -> int:
    failed = [name for name, state in steps.items() if state == "FAILED"]
    if str(run.state) == "SUCCEEDED":
        return 0
    if any(_GATE_STEP in name for name in failed):
        print("the evaluation gate did not pass; see the summary of the register step")
        return GATE_FAILED
    if str(run.state) == "FAILED":
        raise StageError(
            f"the run {run.run_id} failed",
            expected="every step to succeed",
            found=f"failed: {', '.join(failed)}" if failed else str(run.error or "no step says why"),
            action="open the step's log in the UI; finished stages are reused by the next run",
        )
    raise PlatformError(
        f"the run {run.run_id} was stopped",
        expected="SUCCEEDED",
        found=run.state,
        action="start it again; finished stages are reused",
    )


def _steps(run: Any) -> dict[str, str]:
    details = run.run_details.task_details if run.run_details else None
    return {task.display_name: str(task.state) for task in details or [] if task.display_name}


def _markdown(run: Any, steps: Mapping[str, str], host: str) -> str:
    lines = [f"## {run.display_name}: {str(run.state).lower()}", "", f"[Run]({link(host, run.run_id)})", ""]
    lines += ["| step | state |", "|---|---|", *(f"| {name} | {state.lower()} |" for name, state in steps.items())]
    return "\n".join(lines) + "\n"


def _experiment(client: Any, target: Target) -> str:
    """Id of the experiment; only the default one is created when it is missing."""
    namespace = target.namespace or None
    if target.experiment == EXPERIMENT:
        return get_or_create(
            lambda: client.create_experiment(EXPERIMENT, namespace=namespace),
            lambda: client.get_experiment(experiment_name=EXPERIMENT, namespace=namespace),
        ).experiment_id
    try:
        # The client's filter is unquoted twice by the server.
        named = target.experiment.replace("%", "%25").replace("+", "%2B")
        return client.get_experiment(experiment_name=named, namespace=namespace).experiment_id
    except ValueError as error:
        raise PlatformError(
            "unknown experiment",
            expected="an experiment of this namespace",
            found=target.experiment,
            action=f"create it in the UI, correct --experiment, or leave it out for {EXPERIMENT}",
        ) from error


def _identity(run: Any) -> tuple[Any, ...]:
    schedule_ = run.trigger.cron_schedule if run.trigger else None
    reference = run.pipeline_version_reference
    return (
        run.experiment_id,
        reference.pipeline_id if reference else None,
        (reference.pipeline_version_id if reference else None) or "",
        schedule_.cron if schedule_ else None,
        (run.runtime_config.parameters if run.runtime_config else None) or {},
        str(run.mode),
        run.service_account or "",
    )


def _check_form(package: Package, parameters: Mapping[str, str]) -> None:
    unknown = sorted(set(parameters) - set(package.form))
    if unknown:
        raise RecipeError(
            f"{package.name} has no parameter {unknown[0]}",
            expected=f"one of {', '.join(package.form)}",
            found=unknown[0],
            action="leave it out, or compile a pipeline that has it",
        )
