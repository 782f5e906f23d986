"""What each command of the command line does; `cli` parses, this module acts."""

import argparse
import importlib
import importlib.util
import json
import os
import shutil
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from qwenops.contracts.metrics import find_metric
from qwenops.errors import PlatformError, RecipeError
from qwenops.model.sizes import Experts
from qwenops.recipe.codec import canonical
from qwenops_pipelines.dags.edges import NODES
from qwenops_pipelines.dags.pipelines import find_pipeline
from qwenops_pipelines.placements import by_name
from qwenops_pipelines.recipes import load_recipe

# Modules a run needs, and the extra of this package that brings each.
_NEEDED = {
    "kfp": "pipelines",
    "ray": "platform",
    "mlflow": "platform",
    "torch": "train",
    "transformers": "train",
    "great_expectations": "data",
    "pyarrow": "data",
    "kubernetes": "platform",
}
_NEEDED_BYTES = 5 * 10**9
_REGISTRY = "models can be registered at"


def _run(options: argparse.Namespace) -> int:
    for stage in (options.until, options.restart):
        _check_stage(stage)
    recipe = load_recipe(options.recipe, options.overrides)
    local = importlib.import_module("qwenops_pipelines.local")
    out = options.out or Path("runs") / recipe.name
    return local.run_local(recipe, out, by_name(options.placement), until=options.until, restart=options.restart)


def _compile(options: argparse.Namespace) -> int:
    _check_stage(options.until)
    pipeline = find_pipeline(options.pipeline)
    compiler = importlib.import_module("qwenops_pipelines.compile")
    recipe, placement = load_recipe(options.recipe, options.overrides), by_name(options.placement)
    compiler.compile_pipeline(recipe, placement, options.output, pipeline=pipeline, until=options.until)
    print(f"wrote {options.output}")
    return 0


def _submit(options: argparse.Namespace) -> int:
    submit = importlib.import_module("qwenops_pipelines.submit")
    target, package, parameters = _submission(options)
    name = options.run_name or package.version
    client, run_id = submit.submit(target, package, parameters | {"run_name": name}, name)
    print(f"started {name}: {submit.link(target.host, run_id)}")
    return submit.wait(client, target.host, run_id, options.timeout, options.summary) if options.wait else 0


def _schedule(options: argparse.Namespace) -> int:
    submit = importlib.import_module("qwenops_pipelines.submit")
    target, package, parameters = _submission(options)
    name = options.run_name or package.name
    recurring_run, what = submit.schedule(target, package, parameters | {"run_name": name}, name, options.cron)
    print(f"{what} the recurring run {name} ({recurring_run}); it follows the newest version of {package.name}")
    return 0


def _submission(options: argparse.Namespace) -> tuple[Any, Any, dict[str, str]]:
    """Target, package and form of `submit` and `schedule`."""
    versions = importlib.import_module("qwenops_pipelines.versions")
    host = options.host or os.environ.get("KF_PIPELINES_ENDPOINT", "")
    target = versions.Target(host, options.namespace, options.experiment, options.service_account)
    package = versions.read_package(options.pipeline, options.commit)
    parameters: dict[str, str] = {}
    if options.recipe or options.overrides:
        source = options.recipe or package.form["recipe_text"]
        parameters["recipe_text"] = canonical(load_recipe(source, options.overrides))
    if options.start_from:
        parameters["start_from"] = options.start_from
    if options.fail_on_gate:
        parameters["failed_gate"] = "fail"
    return target, package, parameters


def _plan(options: argparse.Namespace) -> int:
    plan = importlib.import_module("qwenops_pipelines.plan")
    print(plan.describe(load_recipe(options.recipe, options.overrides), by_name(options.placement)))
    return 0


def _placement(options: argparse.Namespace) -> int:
    # What is left at its default must not be written out: a pod takes from the placement what it does not set itself.
    print(by_name(options.placement).model_dump_json(indent=2, exclude_unset=True))
    return 0


def _show(options: argparse.Namespace) -> int:
    record = _read_record(options.run)
    print(f"{record['run_name']}  recipe {record['recipe']}  {record['status']}  {record['seconds']:.0f} s")
    for name, stage in record["stages"].items():
        print(f"\n{name}  {stage['status']}  {stage['seconds']:.1f} s")
        for metric, value in sorted(stage["metrics"].items()):
            print(f"  {metric:<44} {value:>12.4g} {_unit(metric)}")
        for warning in stage["warnings"]:
            print(f"  warning: {warning}")
    return 0


def _compare(options: argparse.Namespace) -> int:
    left, right = (_read_record(path) for path in options.runs)
    print(f"{'':<58} {left['run_name']:>14} {right['run_name']:>14}")
    for name in (node.name for node in NODES):
        pair = [record["stages"].get(name, {"metrics": {}, "seconds": 0.0}) for record in (left, right)]
        _compare_row(f"{name} seconds", pair[0]["seconds"], pair[1]["seconds"])
        for metric in sorted(set(pair[0]["metrics"]) | set(pair[1]["metrics"])):
            _compare_row(f"{name} {metric}", pair[0]["metrics"].get(metric), pair[1]["metrics"].get(metric))
    return 0


def _compare_row(label: str, left: float | None, right: float | None) -> None:
    if left != right:
        cells = [f"{value:>14.4g}" if value is not None else f"{'-':>14}" for value in (left, right)]
        print(f"{label:<58} {' '.join(cells)}")


def _chat(options: argparse.Namespace) -> int:
    model = (
        Path(_read_record(options.model)["model"]["path"]) if (options.model / "run.json").exists() else options.model
    )
    importlib.import_module("qwenops.delivery.chat").chat(model, options.long_context, sys.stdin, sys.stdout)
    return 0


def _review(options: argparse.Namespace) -> int:
    review = importlib.import_module("qwenops.data.review")
    if options.target.is_file():
        print(f"--set '{review.setting(review.source_weights(options.target))}'")
        return 0
    stages = _read_record(options.target)["stages"]
    reached = [name for name in ("decontaminate", "dedup", "quality", "ingest") if stages.get(name, {}).get("outputs")]
    if not reached:
        raise RecipeError(
            f"{options.target} holds no documents",
            expected="a run whose ingest has finished",
            found=", ".join(stages) or "no stage",
            action="run the recipe at least to ingest",
        )
    (output,) = stages[reached[0]]["outputs"].values()
    shown = review.write_page(Path(output["path"]), options.output, options.documents, options.seed)
    print(
        f"wrote {options.output}: {shown} documents of {reached[0]}. Judge them and save the page, then:"
        " qwenops review decisions.json"
    )
    return 0


def _upcycle(options: argparse.Namespace) -> int:
    upcycling = importlib.import_module("qwenops.model.upcycling")
    folder = importlib.import_module("qwenops.model.upcycled_folder")
    layout = Experts(
        num_experts=options.experts,
        num_active=options.active,
        expert_width=options.expert_width,
        shared_width=options.shared_width,
    )
    how = upcycling.Upcycling(layout, options.reinit, options.granularity, options.start, options.seed)
    done = folder.upcycle_folder(
        options.dense,
        options.out,
        how,
        shard_bytes=int(options.shard_gb * 10**9),
        on_layer=lambda layer, layers: print(f"layer {layer} of {layers}", flush=True),
    )
    print(
        f"wrote {options.out}: {done.parameters:,} parameters, {done.weight_bytes / 1e9:.2f} GB, {done.copies} copies"
    )
    return 0


def _doctor(options: argparse.Namespace) -> int:
    if options.cluster:
        cluster = importlib.import_module("qwenops_pipelines.doctor")
        return cluster.report(cluster.look(by_name(options.placement), options.namespace))
    lines = [
        (name, importlib.util.find_spec(name) is not None, f"pip install -c constraints.txt -e '.[{extra}]'")
        for name, extra in _NEEDED.items()
    ]
    free = shutil.disk_usage(Path.cwd()).free
    lines.append(("5 GB of free disk", free >= _NEEDED_BYTES, f"free some space ({free / 1e9:.1f} GB here)"))
    lines.append(("two CPU cores", (os.cpu_count() or 1) >= 2, "a run on one core takes twice as long"))
    lines.append(("dpkg-deb", shutil.which("dpkg-deb") is not None, "Debian sources will be skipped without dpkg"))
    lines += _registry()
    for name, good, command in lines:
        print(f"{'ok     ' if good else 'missing'}  {name}" + ("" if good else f"  ->  {command}"))
    needed = [*lines[: len(_NEEDED)], *(line for line in lines if line[0].startswith(_REGISTRY))]
    return 0 if all(good for _, good, _ in needed) else 5


def _registry() -> list[tuple[str, bool, str]]:
    """Whether the MLflow server that the environment names takes models; a run without one makes its own database."""
    address = os.environ.get("MLFLOW_TRACKING_URI", "")
    if not address or importlib.util.find_spec("mlflow") is None:
        return []
    try:
        importlib.import_module("qwenops.platform.registry").check(address)
    except PlatformError as error:
        return [(f"{_REGISTRY} {address}", False, f"{error.message}: {error.found}; {error.action}")]
    return [(f"{_REGISTRY} {address}", True, "")]


def _check_stage(name: str) -> None:
    if name and name not in {node.name for node in NODES}:
        raise RecipeError(
            "unknown stage",
            expected=f"one of {', '.join(node.name for node in NODES)}",
            found=name,
            action="check --until and --from",
        )


def _read_record(folder: Path) -> dict[str, Any]:
    try:
        return json.loads((folder / "run.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RecipeError(
            f"{folder} holds no run record",
            expected="a folder that `qwenops run` wrote",
            found=error,
            action="give the folder that was --out",
        ) from None


def _unit(metric: str) -> str:
    listed = find_metric(metric)
    return listed.unit if listed else ""


COMMANDS: Mapping[str, Callable[[argparse.Namespace], int]] = {
    "run": _run,
    "compile": _compile,
    "submit": _submit,
    "schedule": _schedule,
    "plan": _plan,
    "placement": _placement,
    "show": _show,
    "compare": _compare,
    "chat": _chat,
    "review": _review,
    "upcycle": _upcycle,
    "doctor": _doctor,
}
