"""What each command of the command line does; `cli` parses, this module acts."""

import argparse
import os
import sys
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from qwenops.errors import RecipeError
from qwenops.model.sizes import Experts
from qwenops.platform.secrets import redact
from qwenops.recipe.codec import canonical, decode
from qwenops_pipelines import machine
from qwenops_pipelines.dags.nodes import NODES, Node
from qwenops_pipelines.dags.pipelines import find_pipeline
from qwenops_pipelines.explain import explain
from qwenops_pipelines.extras import RUN, require
from qwenops_pipelines.limits import check_form
from qwenops_pipelines.placements import by_name
from qwenops_pipelines.recipes import RECIPES, load_recipe, purpose
from qwenops_pipelines.records import compare, read_record, show
from qwenops_pipelines.rehearsal import describe_changes, rehearsal


def _run(options: argparse.Namespace) -> int:
    for stage in (options.until, *filter(None, (options.restart, options.why))):
        _check_stage(stage)
    recipe = load_recipe(options.recipe, options.overrides)
    require(RUN)
    from qwenops_pipelines import local

    out = options.out or Path("runs") / recipe.name
    if options.why:
        print(local.explain_rerun(recipe, out, by_name(options.placement), options.why))
        return 0
    return local.run_local(recipe, out, by_name(options.placement), until=options.until, restart=options.restart)


def _rehearse(options: argparse.Namespace) -> int:
    recipe, placement = load_recipe(options.recipe, options.overrides), by_name(options.placement)
    from qwenops_pipelines import meshes

    meshes.check_fit(recipe, placement)
    rehearsed = rehearsal(recipe)
    print(describe_changes(recipe, rehearsed), flush=True)
    require(RUN)
    from qwenops_pipelines import local

    here = by_name("laptop").model_copy(update={"num_workers": options.workers})
    status = local.run_local(rehearsed, options.out or Path("runs") / rehearsed.name, here)
    print(f"every stage of {recipe.name} ran at toy size; the figures and the gate of a rehearsal judge nothing")
    return status


def _compile(options: argparse.Namespace) -> int:
    pipeline = find_pipeline(options.pipeline)
    if options.until:
        _check_stage(options.until, pipeline.nodes)
    recipe, placement = load_recipe(options.recipe, options.overrides), by_name(options.placement)
    from qwenops_pipelines import compile as compiler

    compiler.compile_pipeline(recipe, placement, options.output, pipeline=pipeline, until=options.until)
    print(f"wrote {options.output}")
    return 0


def _submit(options: argparse.Namespace) -> int:
    from qwenops_pipelines import follow, submit

    target, package, parameters = _submission(options)
    name = options.run_name or package.version
    client, run_id = submit.submit(target, package, parameters | {"run_name": name}, name)
    print(f"started {name}: {follow.link(target.host, run_id)}", flush=True)
    if not options.wait:
        return 0
    return follow.wait(client, target.host, run_id, package, options.timeout, options.summary)


def _schedule(options: argparse.Namespace) -> int:
    from qwenops_pipelines import submit

    target, package, parameters = _submission(options)
    name = options.run_name or package.name
    recurring_run, what = submit.schedule(target, package, parameters | {"run_name": name}, name, options.cron)
    print(f"{what} the recurring run {name} ({recurring_run}); it follows the newest version of {package.name}")
    return 0


def _submission(options: argparse.Namespace) -> tuple[Any, Any, dict[str, str]]:
    """Target, package and form of `submit` and `schedule`."""
    from qwenops_pipelines import versions

    host = options.host or os.environ.get("KF_PIPELINES_ENDPOINT", "")
    target = versions.Target(host, options.namespace, options.experiment, options.service_account)
    package = versions.read_package(options.pipeline, options.commit)
    parameters: dict[str, str] = {}
    if options.recipe or options.overrides:
        source = options.recipe or package.form["recipe_text"]
        recipe = load_recipe(source, options.overrides)
        check_form(recipe)
        parameters["recipe_text"] = canonical(recipe)
    if options.start_from:
        parameters["start_from"] = options.start_from
    if options.fail_on_gate:
        parameters["failed_gate"] = "fail"
    return target, package, parameters


def _plan(options: argparse.Namespace) -> int:
    recipe, placement = load_recipe(options.recipe, options.overrides), by_name(options.placement)
    from qwenops_pipelines import plan

    print(plan.describe(recipe, placement))
    return 0


def _placement(options: argparse.Namespace) -> int:
    # What is left at its default must not be written out: a pod takes from the placement what it does not set itself.
    print(by_name(options.placement).model_dump_json(indent=2, exclude_unset=True))
    return 0


def _recipes(options: argparse.Namespace) -> int:
    del options
    for name in RECIPES:
        print(f"{name:16} {purpose(name)}")
    print("\nqwenops plan NAME says what one needs, qwenops explain --recipe NAME STAGE what it sets")
    return 0


def _explain(options: argparse.Namespace) -> int:
    print(explain(options.path, load_recipe(options.recipe, []) if options.recipe else None))
    return 0


def _look(options: argparse.Namespace) -> int:
    recipe = load_recipe(options.recipe, options.overrides)
    require(("pyarrow", "resiliparse"))
    from qwenops_pipelines import look

    source = look.find_source(options.source, recipe.collect)
    print(look.describe(source, look.look(source, recipe.collect, recipe.ingest, options.rows, options.pages)))
    return 0


def _completion(options: argparse.Namespace) -> int:
    from qwenops_pipelines import completion

    print(completion.script(options.shell))
    return 0


def _show(options: argparse.Namespace) -> int:
    show(read_record(options.run))
    return 0


def _compare(options: argparse.Namespace) -> int:
    compare(*(read_record(folder) for folder in options.runs))
    return 0


def _chat(options: argparse.Namespace) -> int:
    require(("torch", "transformers"))
    from qwenops.delivery import chat
    from qwenops.delivery.chat_model import Decoding

    decoding = Decoding(options.temperature, options.top_p, options.max_new_tokens, seed=options.seed)
    model = _model_folder(options.model)
    with options.file.open(encoding="utf-8") if options.file else nullcontext(sys.stdin) as questions:
        chat.chat(model, options.long_context, questions, sys.stdout, options.system, decoding)
    return 0


def _serve(options: argparse.Namespace) -> int:
    require(("torch", "transformers", "fastapi", "uvicorn"))
    from qwenops.delivery.chat_model import open_chat_model
    from qwenops.delivery.serve import serve

    folder = _model_folder(options.model)
    key = os.environ.get(options.api_key_variable, "") if options.api_key_variable else ""
    if options.api_key_variable and not key:
        raise RecipeError(
            "there is no key to ask for",
            expected=f"the environment variable {options.api_key_variable}",
            found="none, or an empty one",
            action="export it first",
        )
    name = options.name or folder.name
    model = open_chat_model(folder, options.long_context)
    serve(
        model,
        name,
        options.host,
        options.port,
        key,
        lambda address: print(f"{name} answers at {address}; Ctrl-C ends it", flush=True),
    )
    return 0


def _model_folder(place: Path) -> Path:
    return _exported(place) if (place / "run.json").exists() else place


def _cleanup(options: argparse.Namespace) -> int:
    require(RUN)
    from qwenops_pipelines.cleanup import find_unused, remove
    from qwenops_pipelines.local import locked

    find_unused(options.run, options.keep)  # before a lock is laid where no run is
    with locked(options.run):
        unused, records = find_unused(options.run, options.keep)
        for one in unused:
            print(f"{one.num_bytes / 1e6:10,.1f} MB  {one.path.relative_to(options.run)}")
        total = f"{sum(one.num_bytes for one in unused) / 1e6:,.1f} MB in {len(unused)} folders, {len(records)} records"
        if options.yes:
            remove(unused, records)
        print(f"deleted {total}" if options.yes else f"{total}: --yes deletes them")
    return 0


def _ui(options: argparse.Namespace) -> int:
    require(("mlflow",))
    from qwenops_pipelines.user_folders import artifact_root, tracking_address

    here = Path.cwd()
    address = tracking_address(here)
    if urlsplit(address).scheme in ("http", "https"):
        print(f"this machine's runs are recorded on a server with pages of its own: {address}")
        return 0
    from qwenops.platform.mlflow import server

    server.check_reachable(address)
    print(f"runs recorded in {redact(address)}; Ctrl-C ends the pages", flush=True)
    program = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(options.port)]
    program += [
        "--workers",
        "1",
        "--backend-store-uri",
        address,
        "--default-artifact-root",
        str(artifact_root(address, here)),
    ]
    os.execv(program[0], program)


def _exported(run: Path) -> Path:
    path = read_record(run).model.path
    if not path:
        raise RecipeError(
            f"the run in {run} has exported no model",
            expected="a run that reached export",
            found="none in its record",
            action="run the same command again to continue it",
        )
    return Path(path)


def _review(options: argparse.Namespace) -> int:
    from qwenops.data import review

    if options.target.is_file():
        print(f"--set '{review.override_text(review.source_weights(options.target))}'")
        return 0
    stages = read_record(options.target).stages
    kept = ("decontaminate", "dedup", "quality", "ingest")
    reached = [name for name in kept if name in stages and stages[name].outputs]
    if not reached:
        raise RecipeError(
            f"{options.target} holds no documents",
            expected="a run whose ingest has finished",
            found=", ".join(stages) or "no stage",
            action="run the recipe at least to ingest",
        )
    (output,) = stages[reached[0]].outputs.values()
    shown = review.write_page(Path(output.path), options.output, options.documents, options.seed)
    print(
        f"wrote {options.output}: {shown} documents of {reached[0]}. Judge them and save the page, then:"
        " qwenops review decisions.json"
    )
    return 0


def _upcycle(options: argparse.Namespace) -> int:
    from qwenops.model import upcycled_folder as folder
    from qwenops.model import upcycling

    widths = {"expert_width": options.expert_width, "shared_width": options.shared_width}
    chosen = {"num_experts": options.experts, "num_active": options.active, **widths}
    layout = decode(Experts, canonical(chosen), where="upcycle")
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
        from qwenops_pipelines import doctor as cluster

        return cluster.report(cluster.check_cluster(by_name(options.placement), options.namespace))
    return machine.report()


def _check_stage(name: str, nodes: tuple[Node, ...] = NODES) -> None:
    if name not in {node.name for node in nodes}:
        raise RecipeError(
            "unknown stage",
            expected=f"one of {', '.join(node.name for node in nodes)}",
            found=repr(name),
            action="check --until and --from",
        )


COMMANDS: Mapping[str, Callable[[argparse.Namespace], int]] = {
    "run": _run,
    "rehearse": _rehearse,
    "compile": _compile,
    "submit": _submit,
    "schedule": _schedule,
    "plan": _plan,
    "placement": _placement,
    "recipes": _recipes,
    "explain": _explain,
    "look": _look,
    "completion": _completion,
    "show": _show,
    "compare": _compare,
    "chat": _chat,
    "serve": _serve,
    "cleanup": _cleanup,
    "ui": _ui,
    "review": _review,
    "upcycle": _upcycle,
    "doctor": _doctor,
}
