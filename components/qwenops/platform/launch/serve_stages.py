"""Command line of the stage server: `python -m qwenops.platform.launch.serve_stages SOCKET [MODULE ...]`."""

import argparse
from dataclasses import replace
from functools import partial

from qwenops.errors import QwenOpsError
from qwenops.platform.context import RunContext
from qwenops.platform.identity.sources import Sources
from qwenops.platform.launch.outcome import recorded_outcome
from qwenops.platform.launch.stage_server import Answer, Request, serve
from qwenops.platform.stage.events import describe_error
from qwenops.platform.stage.produce import produce
from qwenops.platform.stage.task import read_task, sources_of
from qwenops.platform.termination import die_with_parent


def answer(request: Request, loaded: Sources) -> Answer:
    """Run the stage that a request to the stage server names; returns where it lies, or the error.

    `loaded` is the code as it was when the server started, part of which it has imported.
    """
    context = RunContext.from_environment()
    try:
        task = read_task(request, context)
        # Asked twice, by the step and ahead of it, a stage runs once.
        published = recorded_outcome(task, context)
        if published is None:
            published = produce(replace(task, loaded=loaded.causes(task.stage, task.slice.config)), context)
    except QwenOpsError as error:
        return {"error": describe_error(error)}
    return {"path": str(published.path)}


def main() -> None:
    """Serve stages on the given Unix socket until the parent process ends."""
    parser = argparse.ArgumentParser(description="Run stages in forks of one warm process.")
    parser.add_argument("socket", help="path of the Unix socket to listen on")
    parser.add_argument("modules", nargs="*", help="modules to import before they are needed")
    die_with_parent()
    context = RunContext.from_environment()
    loaded = sources_of(context)
    options = parser.parse_args()
    serve(options.socket, partial(answer, loaded=loaded), context.slots, options.modules)


if __name__ == "__main__":
    main()
