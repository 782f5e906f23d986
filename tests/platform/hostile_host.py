"""What a host has that no program may touch, and the judgement of hostile programs on it; also run as another user.

Run as a program it prints the results as JSON: `python hostile_host.py FOLDER [ISOLATION]`.
"""

import contextlib
import ctypes
import json
import os
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from hostile_programs import ESCAPES, FORGERIES, GREED, IMPORTS

from qwenops.platform.sandbox.judging import Program, Sandbox

CUBES = ("assert f(2) == 8", "assert abs(f(3) - 27) < 1e-6", "assert f(2) in {8}", "assert not f(2) != 8")


@contextlib.contextmanager
def host(folder: Path) -> Iterator[dict[str, Any]]:
    """Things of this user: a 0600 file, a database, listeners, System V shared memory, a process with a secret."""
    name = f"qwenops-{os.getpid()}"
    place = {"folder": folder, "secret": folder / "secret", "database": folder / "database", "extra": folder / "extra"}
    for path in (place["secret"], place["extra"], folder / "extra2"):
        path.write_text("secret")
        path.chmod(0o600)
    with sqlite3.connect(place["database"]) as database:
        database.execute("create table t(x)")
        database.execute("insert into t values (1)")
    database.close()
    environment = {"QWENOPS_SECRET": "secret"}  # pragma: allowlist secret
    sleeper = subprocess.Popen([sys.executable, "-c", "input()"], env=environment, stdin=subprocess.PIPE)
    libc = ctypes.CDLL(None, use_errno=True)
    key = 0x51000000 + os.getpid()
    segment = libc.shmget(key, 4096, 0o1600)
    with socket.create_server(("127.0.0.1", 0)) as port, contextlib.ExitStack() as sockets:
        for address in (str(folder / "socket"), "\0" + name):
            listener = sockets.enter_context(socket.socket(socket.AF_UNIX))
            listener.bind(address)
            listener.listen(8)
        more = {
            "socket": folder / "socket",
            "shared": f"/dev/shm/{name}",
            "name": name,
            "pid": sleeper.pid,
            "port": port.getsockname()[1],
            "shm_key": key,
            "checkout": Path(__file__).parents[2] / "pyproject.toml",
        }
        packages = [path for path in sys.path if Path(path, "pydantic").is_dir()]
        try:
            yield {
                k: str(v) if isinstance(v, Path) else v for k, v in (place | more | {"packages": packages[0]}).items()
            }
        finally:
            sleeper.kill()
            sleeper.communicate()
            libc.shmctl(segment, 0, None)


def judge_hostile(
    folder: Path, isolation: Any, kinds: tuple[str, ...], left_out: tuple[str, ...] = ()
) -> dict[str, dict[str, tuple[str, ...]]]:
    """Results of every hostile program by kind and name, but for those left out."""
    court = Sandbox.open(isolation, timeout_seconds=8.0)
    with host(folder) as place:
        bodies = {"escapes": ESCAPES, "greed": GREED}
        programs = {
            kind: {
                name: Program(f"{IMPORTS}def f(place):\n    {body}\n", (f"assert f({place!r}) == 'out'",), ("f",))
                for name, body in bodies[kind].items()
                if name not in left_out
            }
            for kind in kinds
            if kind in bodies
        }
        if "forgeries" in kinds:
            programs["forgeries"] = {name: Program(code, CUBES, ("f",)) for name, code in FORGERIES.items()}
        verdicts = iter(court.judge_all([program for group in programs.values() for program in group.values()]))
        return {kind: {name: next(verdicts).results for name in group} for kind, group in programs.items()}


if __name__ == "__main__":
    print(json.dumps(judge_hostile(Path(sys.argv[1]), sys.argv[2], tuple(sys.argv[3:]))))
