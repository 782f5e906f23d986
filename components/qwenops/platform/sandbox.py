"""Run a program nobody has read: separate process, no network, limits on time, memory, output and files.

Used for execution feedback (report, 4.1.2) and for code benchmarks. Three fences stand one inside the other:
Linux namespaces (own network, own process tree) where the kernel lets us make them; resource limits, always; and an
audit hook that refuses sockets, new processes and writes outside the work folder, always. The hook alone would not hold
a determined attacker, which is why `Outcome.isolation` says whether the namespaces were there.
"""

import contextlib
import functools
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Status = Literal["passed", "failed", "timeout"]
Isolation = Literal["namespaces", "process"]

_OUTPUT_BYTES = 64 * 1024
_NAMESPACES = ("unshare", "--user", "--map-root-user", "--net", "--pid", "--fork", "--kill-child")

# Runs inside the child, before the program: limits first, then the hook, then the program itself.
_WARDEN = r"""
import os, resource, sys
cpu, memory, output, finished = (int(x) for x in sys.argv[1:5])
resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
resource.setrlimit(resource.RLIMIT_CPU, (cpu, cpu + 1))
resource.setrlimit(resource.RLIMIT_FSIZE, (output, output))
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
resource.setrlimit(resource.RLIMIT_NOFILE, (32, 32))
source = open("program.py", encoding="utf-8").read()
code = compile(source, "program.py", "exec")
def refuse(event, args, home=os.getcwd(), fspath=os.fspath, realpath=os.path.realpath):
    if event.startswith(("socket.", "subprocess.", "ctypes.", "os.fork", "os.exec", "os.posix_spawn", "os.system",
                         "os.kill", "os.spawn", "os.remove", "os.rename", "os.rmdir", "os.chmod", "os.chown",
                         "os.link", "os.symlink", "os.truncate", "shutil.", "pty.", "signal.pthread_kill")):
        raise PermissionError("the sandbox refuses " + event)
    if event == "open" and not isinstance(args[0], int):
        mode, flags = args[1], args[2]
        writes = (mode and set(mode) & set("wax+")) or flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC)
        if writes and not realpath(os.fsdecode(args[0])).startswith(home + os.sep):
            raise PermissionError("the sandbox refuses to write " + repr(args[0]))
sys.argv = ["program.py"]
sys.addaudithook(refuse)
exec(code, {"__name__": "__main__"})
sys.stdout.flush()
os._exit(finished)
"""


@dataclass(frozen=True)
class Outcome:
    """What became of one program.

    Attributes:
        status: "passed" (its last line was reached), "failed" (any other end: an exception, an early exit, a limit) or
            "timeout".
        stdout: First 64 KiB.
        stderr: First 64 KiB.
        seconds: Wall time.
        isolation: "namespaces" with no network at all, "process" where the kernel refused them.
    """

    status: Status
    stdout: str
    stderr: str
    seconds: float
    isolation: Isolation

    @property
    def passed(self) -> bool:
        """Whether the program ran to its last line; leaving early with status 0 does not count."""
        return self.status == "passed"


def run_python(code: str, timeout_seconds: float = 5.0, memory_mb: int = 512, stdin: str = "") -> Outcome:
    """Run `code` as a Python program in a fresh folder and return what became of it; never raises for its sake.

    Args:
        code: Source text; only the standard library can be imported.
        timeout_seconds: Wall time after which every process of the program is killed.
        memory_mb: Limit on its address space.
        stdin: Text it can read from standard input.
    """
    isolation = available_isolation()
    prefix = _NAMESPACES if isolation == "namespaces" else ()
    # A program that calls os._exit(0) must not look like one whose tests passed: the status of success is drawn anew.
    finished = random.SystemRandom().randrange(64, 126)
    limits = (max(1, round(timeout_seconds + 0.5)), memory_mb << 20, _OUTPUT_BYTES, finished)
    with tempfile.TemporaryDirectory(prefix="sandbox-") as folder:
        home = Path(folder)
        (home / "program.py").write_text(code, encoding="utf-8", errors="surrogatepass")
        (home / "stdin").write_text(stdin, encoding="utf-8")
        command = [*prefix, sys.executable, "-I", "-S", "-X", "utf8", "-c", _WARDEN, *map(str, limits)]
        began = time.monotonic()
        status = _run(command, home, timeout_seconds, finished)
        seconds = time.monotonic() - began
        return Outcome(status, _head(home / "stdout"), _head(home / "stderr"), seconds, isolation)


@functools.cache
def available_isolation() -> Isolation:
    """Whether this kernel lets us make a network and a process namespace; asked once."""
    if shutil.which("unshare") is None:
        return "process"
    done = subprocess.run([*_NAMESPACES, "true"], capture_output=True, check=False, timeout=10)
    return "namespaces" if done.returncode == 0 else "process"


def _run(command: list[str], home: Path, timeout_seconds: float, finished: int) -> Status:
    environment = {"PATH": os.defpath, "HOME": str(home), "LANG": "C.UTF-8"}
    with (home / "stdin").open() as stdin, (home / "stdout").open("wb") as out, (home / "stderr").open("wb") as err:
        process = subprocess.Popen(
            command, cwd=home, env=environment, stdin=stdin, stdout=out, stderr=err, start_new_session=True
        )
        try:
            return "passed" if process.wait(timeout_seconds) == finished else "failed"
        except subprocess.TimeoutExpired:
            return "timeout"
        finally:
            _kill_group(process)


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):  # every process of the group has ended already
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _head(path: Path) -> str:
    with path.open("rb") as stream:
        return stream.read(_OUTPUT_BYTES).decode("utf-8", errors="replace")
