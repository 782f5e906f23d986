"""The command line: `qwenops run|compile|show|compare|chat|doctor|plan`.

An error is one message (expected, found, what to do) and the exit status of its family; a traceback is shown only
with `--debug`. Each command imports what it needs, so `qwenops --help` answers at once.
"""

import argparse
import importlib
import sys
import traceback
from pathlib import Path

from qwenops import __version__
from qwenops.errors import QwenOpsError

_INTERRUPTED = 130


def main(arguments: list[str] | None = None) -> None:
    """Parse `arguments` (the process's own when None), run the command, exit with its status."""
    options = _parser().parse_args(arguments)
    try:
        sys.exit(importlib.import_module("qwenops_pipelines.commands").COMMANDS[options.command](options))
    except QwenOpsError as error:
        if options.debug:
            traceback.print_exc()
        print(f"qwenops: {type(error).__name__}: {error}", file=sys.stderr)
        sys.exit(error.exit_status)
    except KeyboardInterrupt:
        print("\nqwenops: stopped; run the same command again to continue", file=sys.stderr)
        sys.exit(_INTERRUPTED)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="qwenops", description="Raw pages to a registered, evaluated chat model.")
    parser.add_argument("--version", action="version", version=f"qwenops {__version__}")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    run = commands.add_parser("run", help="run a recipe on this machine")
    _add_recipe(run)
    run.add_argument("--out", type=Path, help="folder of the run (default runs/RECIPE)")
    run.add_argument("--until", default="report", metavar="STAGE", help="stop after this stage")
    run.add_argument(
        "--from", default="", dest="restart", metavar="STAGE", help="make this stage and what follows again"
    )
    run.add_argument("--placement", default="laptop", help="where (default laptop)")

    compile_ = commands.add_parser("compile", help="write the pipeline as KFP YAML")
    _add_recipe(compile_)
    compile_.add_argument("--placement", required=True, help="laptop, h200_node")
    compile_.add_argument("-o", "--output", type=Path, required=True, help="YAML file to write")
    compile_.add_argument("--until", default="report", metavar="STAGE", help="last stage of the pipeline")

    plan = commands.add_parser("plan", help="parameters, FLOPs, memory, hours and money of a recipe; starts nothing")
    _add_recipe(plan)
    plan.add_argument("--placement", default="laptop", help="where (default laptop)")

    show = commands.add_parser("show", help="what a run did")
    show.add_argument("run", type=Path, help="folder of a run")
    compare = commands.add_parser("compare", help="two runs side by side")
    compare.add_argument("runs", type=Path, nargs=2, help="folders of two runs")

    chat = commands.add_parser("chat", help="talk to an exported model")
    chat.add_argument("model", type=Path, help="folder of a run, or of an exported model")
    chat.add_argument("--long-context", choices=("plain", "yarn", "dca"), default="plain", help="long-context mode")

    commands.add_parser("doctor", help="what is missing here, and the command that mends it")
    return parser


def _add_recipe(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("recipe", help="a recipe's name, or a file with its JSON text")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        dest="overrides",
        metavar="PATH=VALUE",
        help="change one field (repeatable)",
    )


if __name__ == "__main__":
    main()
