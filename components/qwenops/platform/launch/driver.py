"""The driver of a stage, or of several in turn, on a Ray cluster: `python -m qwenops.platform.launch.driver TOKEN`.

A stage runs exactly as in a step's own process and writes to the same store; its error family leaves as the exit
status and, with the message, in the run's events. Of several, those that are published already are not made again: a
job that follows a lost one goes on where that ended.
"""

import argparse
import os
import sys
import traceback

from qwenops.errors import QwenOpsError
from qwenops.platform.context import RunContext
from qwenops.platform.kubernetes.token import read_token
from qwenops.platform.launch.outcome import take_published
from qwenops.platform.stage.produce import produce
from qwenops.platform.stage.task import Published, Task, do_in_turn


def run(token: str) -> list[Published]:
    """Run the tasks of `token`.

    Raises:
        QwenOpsError: what a stage raised; those after it have not begun.
    """
    facts = read_token(token)
    os.environ.update(facts["environment"])
    context = RunContext(**facts["context"])

    def do(task: Task) -> Published:
        return take_published(task, context) or produce(task, context, job=facts["job"])

    return do_in_turn(facts["task"], context, do)


def main() -> None:
    """Run the tasks of the command line; the exit status is the error family's."""
    parser = argparse.ArgumentParser(description="Run the stages of one step on this Ray cluster.")
    parser.add_argument("token", help="the tasks, written by the step that created this job")
    try:
        made = run(parser.parse_args().token)
    except QwenOpsError as error:
        traceback.print_exc()
        sys.exit(error.exit_status)
    for published in made:
        print(f"published {published.path}", flush=True)


if __name__ == "__main__":
    main()
