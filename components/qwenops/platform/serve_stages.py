"""Command line of the stage server: `python -m qwenops.platform.serve_stages SOCKET`."""

import argparse
from functools import partial
from pathlib import Path

from qwenops.platform.context import RunContext
from qwenops.platform.identity import Sources
from qwenops.platform.stage import answer
from qwenops.platform.stage_server import die_with_parent, serve


def main() -> None:
    """Serve stages on the given Unix socket until the parent process ends."""
    parser = argparse.ArgumentParser(description="Run stages in forks of one warm process.")
    parser.add_argument("socket", help="path of the Unix socket to listen on")
    die_with_parent()
    loaded = Sources(Path(RunContext.from_environment().cache))
    serve(parser.parse_args().socket, partial(answer, loaded=loaded))


if __name__ == "__main__":
    main()
