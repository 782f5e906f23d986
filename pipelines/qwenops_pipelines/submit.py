"""`qwenops submit` and `qwenops schedule`: a compiled pipeline to a run, or to a recurring run.

A recurring run names no version, so it follows the newest one. Recurring runs cannot be changed: one that differs is
created anew, then the old one deleted.
"""

from collections.abc import Mapping
from typing import Any

import kfp_server_api

from qwenops.errors import PlatformError, RecipeError
from qwenops_pipelines.kubeflow import connect, silence_client, translate_errors
from qwenops_pipelines.versions import EXPERIMENT, Package, Target, called, get_or_create, unquoted_twice, upload

# The client's own annotations call every field of every object optional.
_API: Any = kfp_server_api

_PAGE = 100


def submit(target: Target, package: Package, parameters: Mapping[str, str], run_name: str) -> tuple[Any, str]:
    """Upload the package where its version is new, start a run; returns the client and the run's id.

    Raises:
        RecipeError: a parameter that the pipeline's form does not have.
        PlatformError: Kubeflow cannot be reached or refuses.
    """
    _check_form(package, parameters)
    client = connect(target.host, target.namespace)
    with translate_errors(target.host), silence_client():
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
    with translate_errors(target.host), silence_client():
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
        listed = client.list_recurring_runs(experiment_id=experiment, page_size=_PAGE, filter=called(name))
        old = listed.recurring_runs or []
        if len(old) == 1 and _identity(old[0]) == _identity(wanted):
            return old[0].recurring_run_id, "kept"
        made = client._recurring_run_api.recurring_run_service_create_recurring_run(recurring_run=wanted)
        for run in old:
            client.delete_recurring_run(run.recurring_run_id)
    return made.recurring_run_id, "replaced" if old else "created"


def _experiment(client: Any, target: Target) -> str:
    """Id of the experiment; only the default one is created when it is missing."""
    namespace = target.namespace or None
    if target.experiment == EXPERIMENT:
        return get_or_create(
            lambda: client.create_experiment(EXPERIMENT, namespace=namespace),
            lambda: client.get_experiment(experiment_name=EXPERIMENT, namespace=namespace),
        ).experiment_id
    try:
        named = unquoted_twice(target.experiment)
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
