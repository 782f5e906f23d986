"""The command line: `qwenops COMMAND`, with the commands of `commands.py`.

An error is one message (expected, found, what to do) and the exit status of its family; a traceback is shown only
with `--debug` (`exit_status.py`). Each command imports what it needs, so `qwenops --help` answers at once.
"""

import argparse
import os
import sys
from pathlib import Path

from qwenops import __version__
from qwenops.errors import RecipeError
from qwenops_pipelines.exit_status import report_errors


def main(arguments: list[str] | None = None) -> None:
    """Parse `arguments` (the process's own when None), run the command, exit with its status."""
    with report_errors():
        parser = _parser()
        if "_ARGCOMPLETE" in os.environ:
            # A shell asks what may follow; `qwenops completion` says how it comes to.
            from qwenops_pipelines import completion

            completion.answer(parser)
        options = parser.parse_args(arguments)
    with report_errors(debug=options.debug):
        from qwenops_pipelines import commands

        status = commands.COMMANDS[options.command](options)
        sys.stdout.flush()
        sys.exit(status)


def parse_path(text: str) -> Path:
    """A file or folder of this machine, as an argument names it.

    Raises:
        RecipeError: the text is empty, an address of a store, or bytes that no record could name.
    """
    if not text or "://" in text or not _is_text(text):
        raise RecipeError(
            "this is no place on this machine",
            expected="the path of a file or folder, in UTF-8; artifacts go to a store by a placement's artifact_root",
            found=repr(text),
            action="give a path",
        )
    return Path(text)


def parse_positive(text: str) -> float:
    """A finite number above zero.

    Raises:
        ArgumentTypeError: it is none.
    """
    number = float(text)
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError(f"a finite number above 0, not {text}")
    return number


def parse_count(text: str) -> int:
    """A whole number above zero.

    Raises:
        ArgumentTypeError: it is none.
    """
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"a whole number above 0, not {text}")
    return int(text)


def _is_text(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="qwenops", description="Raw pages to a registered, evaluated chat model.")
    parser.add_argument("--version", action="version", version=f"qwenops {__version__}")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    run = commands.add_parser("run", help="run a recipe on this machine")
    _add_recipe(run)
    run.add_argument("--out", type=parse_path, help="folder of the run (default runs/RECIPE)")
    run.add_argument("--until", default="report", metavar="STAGE", help="stop after this stage")
    run.add_argument(
        "--from", default="", dest="restart", metavar="STAGE", help="make this stage and what follows again"
    )
    run.add_argument("--why", default="", metavar="STAGE", help="say why this stage would run again, and run nothing")
    run.add_argument("--placement", default="laptop", help="where: a name or a .json file (default laptop)")

    rehearse = commands.add_parser("rehearse", help="run every stage of a recipe here, with its choices at toy size")
    _add_recipe(rehearse)
    rehearse.add_argument("--out", type=parse_path, help="folder of the rehearsal (default runs/RECIPE-rehearsal)")
    rehearse.add_argument(
        "--placement", default="h200_node", help="where the recipe is to run, which is checked (default h200_node)"
    )
    rehearse.add_argument(
        "--workers", type=int, choices=(0, 1, 2), default=0, help="Ray Train workers (default 0: the stage itself)"
    )

    compile_ = commands.add_parser("compile", help="write the pipeline as KFP YAML")
    _add_recipe(compile_)
    compile_.add_argument("--placement", required=True, help="laptop, h200_node, kind, or a .json file")
    compile_.add_argument("-o", "--output", type=parse_path, required=True, help="YAML file to write")
    compile_.add_argument("--pipeline", default="full", help="full, data, pretraining, post_training, evaluation")
    compile_.add_argument("--until", default="", metavar="STAGE", help="last stage of the pipeline")

    submit = commands.add_parser("submit", help="run a compiled pipeline on Kubeflow")
    _add_kubeflow(submit)
    submit.add_argument("--wait", action="store_true", help="follow the run; the exit status is its outcome")
    submit.add_argument(
        "--timeout", type=parse_positive, default=86_400.0, metavar="SECONDS", help="longest wait (one day)"
    )
    submit.add_argument("--summary", type=parse_path, metavar="FILE", help="append a Markdown summary to this file")

    schedule = commands.add_parser("schedule", help="run a compiled pipeline on Kubeflow at fixed times")
    _add_kubeflow(schedule)
    schedule.add_argument("--cron", required=True, help="second minute hour day month weekday, in UTC")

    plan = commands.add_parser("plan", help="parameters, FLOPs, memory, hours and money of a recipe; starts nothing")
    _add_recipe(plan)
    plan.add_argument("--placement", default="laptop", help="where (default laptop)")

    placement = commands.add_parser("placement", help="print a placement as JSON, to edit and give to --placement")
    placement.add_argument("placement", help="laptop, h200_node, kind, or a .json file")

    commands.add_parser("recipes", help="the recipes that ship, and what each is for")
    explain = commands.add_parser("explain", help="fields of a recipe: type, default, source")
    explain.add_argument("path", nargs="?", default="", metavar="PATH", help="sft.training, say (default: the stages)")
    explain.add_argument("--recipe", default="", help="whose values to show: a name, a YAML or JSON file")
    look = commands.add_parser("look", help="documents of a source as a run would read them, and what it drops")
    look.add_argument("source", metavar="SOURCE", help="folder, file, address, Hub data set, or a source of the recipe")
    look.add_argument("--recipe", default="tiny", help="whose collect and ingest read it (default tiny)")
    look.add_argument("--rows", type=parse_count, default=10, help="documents to show (default 10)")
    look.add_argument("--pages", type=parse_count, default=1000, help="pages to read at most (default 1000)")
    _add_overrides(look)
    completion = commands.add_parser("completion", help="what makes a shell complete commands, recipes and fields")
    completion.add_argument("shell", choices=("bash", "zsh", "fish"), help="the shell that is to read it")

    show = commands.add_parser("show", help="what a run did")
    show.add_argument("run", type=parse_path, help="folder of a run")
    compare = commands.add_parser("compare", help="two runs side by side")
    compare.add_argument("runs", type=parse_path, nargs=2, help="folders of two runs")

    chat = commands.add_parser("chat", help="talk to an exported model")
    chat.add_argument("model", type=parse_path, help="folder of a run, or of an exported model")
    chat.add_argument("--system", default="", help="opens the conversation (default: the chat template's own)")
    chat.add_argument("--file", type=parse_path, help="read the questions from this file, a line each")
    _add_answering(chat)

    serve = commands.add_parser("serve", help="an exported model behind the OpenAI API, one request at a time")
    serve.add_argument("model", type=parse_path, help="folder of a run, or of an exported model")
    serve.add_argument("--host", default="127.0.0.1", help="address to listen at (default 127.0.0.1)")
    serve.add_argument("--port", type=int, default=8000, help="port (default 8000; 0 takes a free one)")
    serve.add_argument("--name", default="", help="the model's name in the API (default: the folder's)")
    serve.add_argument(
        "--api-key-variable", default="", metavar="NAME", help="environment variable with the key to ask for"
    )
    _add_long_context(serve)

    cleanup = commands.add_parser("cleanup", help="artifacts in a run's folder that no kept run made or reused")
    cleanup.add_argument("run", type=parse_path, help="folder of runs on this machine")
    cleanup.add_argument("--keep", type=parse_count, default=1, help="newest runs to keep (default 1)")
    cleanup.add_argument("--yes", action="store_true", help="delete them (default: list them)")

    ui = commands.add_parser("ui", help="MLflow's pages of all runs on this machine, to compare them")
    ui.add_argument("--port", type=int, default=5000, help="port on 127.0.0.1 (default 5000)")

    review = commands.add_parser("review", help="sampled documents of each source to judge; a saved page to weights")
    review.add_argument("target", type=parse_path, help="folder of a run, or the decisions.json that the page saved")
    review.add_argument("--documents", type=int, default=20, help="sampled documents of each source (default 20)")
    review.add_argument("--seed", type=int, default=0, help="seed of the sample (default 0)")
    review.add_argument("-o", "--output", type=parse_path, default=Path("review.html"), help="page to write")

    upcycle = commands.add_parser("upcycle", help="turn a dense Qwen2 folder into a mixture of experts, file by file")
    upcycle.add_argument("dense", type=parse_path, metavar="DENSE", help="folder of a dense Qwen2 model")
    upcycle.add_argument("out", type=parse_path, metavar="OUT", help="new folder for the mixture")
    upcycle.add_argument("--experts", type=int, default=64, help="routed experts per layer (default 64)")
    upcycle.add_argument("--active", type=int, default=8, help="routed experts a token uses (default 8)")
    upcycle.add_argument("--expert-width", type=int, default=2560, help="width of a routed expert (default 2560)")
    upcycle.add_argument("--shared-width", type=int, default=20_480, help="width of the shared expert (default 20480)")
    upcycle.add_argument("--reinit", type=float, default=0.5, help="share of each expert drawn afresh (default 0.5)")
    upcycle.add_argument("--granularity", choices=("neuron", "weight"), default="neuron", help="what is drawn afresh")
    upcycle.add_argument(
        "--start", choices=("report", "function_preserving"), default="report", help="what it computes"
    )
    upcycle.add_argument("--seed", type=int, default=0, help="seed of every draw (default 0)")
    upcycle.add_argument(
        "--shard-gb", type=parse_positive, default=5.0, help="size of an output file, most of the memory"
    )

    doctor = commands.add_parser("doctor", help="what is missing here, and the command that mends it")
    doctor.add_argument("--cluster", action="store_true", help="look at the cluster that the kubeconfig names")
    doctor.add_argument("--placement", default="h200_node", help="whose claim, queue and image (default h200_node)")
    doctor.add_argument("--namespace", default="", help="namespace of the runs (default: the kubeconfig's)")
    return parser


def _add_long_context(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--long-context", choices=("plain", "yarn", "dca"), default="plain", help="long-context mode")


def _add_answering(parser: argparse.ArgumentParser) -> None:
    _add_long_context(parser)
    parser.add_argument("--temperature", type=float, help="0 takes the likeliest token (default: the model's own)")
    parser.add_argument("--top-p", type=float, help="mass of the nucleus (default: the model's own)")
    parser.add_argument("--max-new-tokens", type=parse_count, default=512, help="longest answer (default 512)")
    parser.add_argument("--seed", type=int, help="of the draws (default: others each time)")


def _add_kubeflow(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("pipeline", type=parse_path, help="YAML that `qwenops compile` wrote")
    parser.add_argument("--host", default="", help="address of Kubeflow Pipelines (default $KF_PIPELINES_ENDPOINT)")
    parser.add_argument("--namespace", default="", help="namespace of the run; empty where there is one user")
    parser.add_argument("--service-account", default="", help="account of the steps (default: Kubeflow's own)")
    parser.add_argument("--experiment", default="qwenops", help="experiment in the UI (default qwenops)")
    parser.add_argument("--run-name", default="", help="name of the run (default: the version's name)")
    parser.add_argument("--commit", default="", help="commit that names the version (default: version and digest)")
    parser.add_argument("--recipe", default="", help="another recipe than the compiled one: a name or file")
    parser.add_argument("--start-from", default="", help="run that a sub-pipeline starts from")
    parser.add_argument("--fail-on-gate", action="store_true", help="a failed evaluation gate fails the run")
    _add_overrides(parser)


def _add_recipe(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("recipe", help="a recipe's name, a YAML or JSON file of one or of changes to one, or JSON text")
    _add_overrides(parser)


def _add_overrides(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        dest="overrides",
        metavar="PATH=VALUE",
        help="change one field (repeatable, a later one wins)",
    )


if __name__ == "__main__":
    main()
