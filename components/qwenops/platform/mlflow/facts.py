"""Where a run's code comes from, whose run it is and what it runs on, as tags; those of MLflow's own are its UI's.

MLflow looks for the repository of the program that was started, which is a script of the environment; here it is that
of the package. An installed package lies in no repository, though the folder around its environment may.
"""

import getpass
import os
import platform
import sys
from collections import Counter
from pathlib import Path

# A pod without git has no commit, and `import git` would fail there.
os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")

import psutil
from git import Repo
from git.exc import GitError
from mlflow.entities import SourceType
from mlflow.utils.credentials import read_mlflow_creds
from mlflow.utils.git_utils import get_git_branch, get_git_commit, get_git_repo_url
from mlflow.utils.mlflow_tags import (
    MLFLOW_GIT_BRANCH,
    MLFLOW_GIT_COMMIT,
    MLFLOW_GIT_DIRTY,
    MLFLOW_GIT_REPO_URL,
    MLFLOW_SOURCE_NAME,
    MLFLOW_SOURCE_TYPE,
    MLFLOW_USER,
)

import qwenops

_DEVICES = "nvidia[0-9]*"


def source_tags() -> dict[str, str]:
    """User, program, and the commit that the package's code is of; without the latter where it lies in none."""
    whose = {
        MLFLOW_USER: read_mlflow_creds().username or _account(),
        MLFLOW_SOURCE_NAME: sys.argv[0],
        MLFLOW_SOURCE_TYPE: str(SourceType.to_string(SourceType.LOCAL)),
    }
    return whose | _commit(Path(qwenops.__file__))


def hardware_tags() -> dict[str, str]:
    """Processor, cores that this process may use, memory and accelerators of this machine."""
    found = {
        "qwenops.hardware.processor": _processor(),
        "qwenops.hardware.cores": str(len(os.sched_getaffinity(0))),
        "qwenops.hardware.memory_gib": f"{psutil.virtual_memory().total / 2**30:.1f}",
        "qwenops.hardware.accelerators": ", ".join(f"{n} x {name}" for name, n in _accelerators().items()),
    }
    return {name: value for name, value in found.items() if value}


def _account() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container may run under a number that no account has
        return str(os.getuid())


def _commit(file: Path) -> dict[str, str]:
    try:
        repository = Repo(file, search_parent_directories=True)
        tracked = repository.git.ls_files("--", str(file))
        changed = repository.is_dirty() if tracked else False
    except (GitError, OSError):
        return {}
    if not tracked:
        return {}
    found = {
        MLFLOW_GIT_COMMIT: get_git_commit(str(file)),
        MLFLOW_GIT_BRANCH: get_git_branch(str(file)),
        MLFLOW_GIT_REPO_URL: get_git_repo_url(str(file)),
        MLFLOW_GIT_DIRTY: "true" if changed else "false",
    }
    return {name: value for name, value in found.items() if value}


def _processor() -> str:
    """The name that Linux gives the processor; the machine's architecture where it gives none."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _accelerators() -> Counter[str]:
    """Name to number of this machine's NVIDIA devices."""
    devices = list(Path("/dev").glob(_DEVICES))
    if not devices:
        return Counter()
    try:
        # Of the `cluster` extra; a laptop's devices have no names.
        import pynvml
    except ImportError:
        return Counter({"NVIDIA": len(devices)})
    try:
        pynvml.nvmlInit()
        handles = [pynvml.nvmlDeviceGetHandleByIndex(place) for place in range(pynvml.nvmlDeviceGetCount())]
        return Counter(pynvml.nvmlDeviceGetName(handle) for handle in handles)
    except pynvml.NVMLError:
        return Counter({"NVIDIA": len(devices)})
