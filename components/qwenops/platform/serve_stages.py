"""Command line of the stage server: `python -m qwenops.platform.serve_stages SOCKET`."""

import argparse

from qwenops.platform.stage import answer
from qwenops.platform.stage_server import die_with_parent, serve


def main() -> None:
    """Serve stages on the given Unix socket until the parent process ends."""
    parser = argparse.ArgumentParser(description="Run stages in forks of one warm process.")
    parser.add_argument("socket", help="path of the Unix socket to listen on")
    die_with_parent()
    serve(parser.parse_args().socket, answer)


if __name__ == "__main__":
    main()
