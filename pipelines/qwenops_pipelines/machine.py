"""What this machine lacks to run a recipe, and the command that mends it: `qwenops doctor`."""

import os
import shutil
from pathlib import Path

from qwenops.errors import PlatformError
from qwenops.platform.secrets import redact
from qwenops_pipelines.extras import EXTRAS, RUN, missing_modules

_NEEDED_BYTES = 5 * 10**9


def report() -> int:
    """Print a line for each thing a run uses; returns the exit status."""
    lines = [
        (name, not missing_modules([name]), f"pip install -c constraints.txt -e '.[{EXTRAS[name]}]'") for name in RUN
    ]
    free = shutil.disk_usage(Path.cwd()).free
    lines.append(("5 GB of free disk", free >= _NEEDED_BYTES, f"free some space ({free / 1e9:.1f} GB here)"))
    lines.append(("two CPU cores", (os.cpu_count() or 1) >= 2, "a run on one core takes twice as long"))
    lines.append(("dpkg-deb", shutil.which("dpkg-deb") is not None, "Debian sources will be skipped without dpkg"))
    lines.append(_store())
    for name, good, command in lines:
        print(f"{'ok     ' if good else 'missing'}  {name}" + ("" if good else f"  ->  {command}"))
    needed = [*lines[: len(RUN)], lines[-1]]
    return 0 if all(good for _, good, _ in needed) else 5


def _store() -> tuple[str, bool, str]:
    """Whether a run would be recorded: the server that the environment names takes models, or a folder is writable."""
    if missing_modules(["mlflow"]):
        return "a store for the record of runs", False, "install mlflow first"
    if address := os.environ.get("MLFLOW_TRACKING_URI", ""):
        from qwenops.platform.mlflow import registry

        name = f"models can be registered at {redact(address)}"
        try:
            registry.check_registry(address)
        except PlatformError as error:
            return name, False, f"{error.message}: {error.found}; {error.action}"
        return name, True, ""
    from qwenops_pipelines.user_folders import data_folder

    place = data_folder(Path.cwd()).absolute()
    there = next(folder for folder in (place, *place.parents) if folder.exists())
    return (
        f"runs can be recorded in {place}",
        there.is_dir() and os.access(there, os.W_OK),
        "set XDG_DATA_HOME to a folder of yours",
    )
