"""The driver of a stage on a Ray cluster: `python -m qwenops.platform.launch.driver TOKEN`.

The stage runs exactly as in a step's own process and writes to the same store; its error family leaves as the exit
status and, with the message, in the run's events.
"""

import argparse
import os
import sys
import traceback

from qwenops.errors import QwenOpsError
from qwenops.platform.context import RunContext
from qwenops.platform.kubernetes.token import read_token
from qwenops.platform.stage.produce import produce
from qwenops.platform.stage.task import Published, read_task


def run(token: str) -> Published:
    """Run the task of `token`.

    Raises:
        QwenOpsError: what the stage raised.
    """
    facts = read_token(token)
    os.environ.update(facts["environment"])
    context = RunContext(**facts["context"])
    return produce(read_task(facts["task"], context), context, job=facts["job"])


def main() -> None:
    """Run the task of the command line; the exit status is the error family's."""
    parser = argparse.ArgumentParser(description="Run one stage on this Ray cluster.")
    parser.add_argument("token", help="the task, written by the step that created this job")
    try:
        published = run(parser.parse_args().token)
    except QwenOpsError as error:
        traceback.print_exc()
        sys.exit(error.exit_status)
    print(f"published {published.path}", flush=True)


if __name__ == "__main__":
    main()
