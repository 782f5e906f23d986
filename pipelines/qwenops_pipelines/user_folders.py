"""What a user keeps beside his runs: downloads, and one MLflow store for all runs, so that they compare.

The places are those of the XDG base directory specification, in a home that is one; the shell that starts a run may
have none, and then both lie in the run's own folder.
"""

import contextlib
import os
import pwd
from pathlib import Path

from sqlalchemy.engine import URL, make_url

from qwenops.recipe.placement import Placement

_VARIABLE = "MLFLOW_TRACKING_URI"
_DATABASE, _ARTIFACTS = "mlflow.db", "mlartifacts"


def home() -> Path | None:
    """The first home that can be written: the shell's, the account's."""
    named = [os.environ.get("HOME", "")]
    with contextlib.suppress(KeyError):  # a container may run under a number that no account has
        named.append(pwd.getpwuid(os.getuid()).pw_dir)
    return next((Path(name) for name in named if name and os.access(name, os.W_OK | os.X_OK)), None)


def cache_folder(out: Path) -> Path:
    """Where downloads are kept: `QWENOPS_CACHE`, else in the user's home, else (there is none) in the run's folder."""
    if chosen := os.environ.get("QWENOPS_CACHE"):
        return Path(chosen)
    place = home()
    return place / ".cache" / "qwenops" if place else out / "cache"


def data_folder(out: Path) -> Path:
    """Where the user's MLflow store lies: below `XDG_DATA_HOME`, else in the home, else in the run's folder."""
    # The specification has relative paths ignored.
    if (chosen := Path(os.environ.get("XDG_DATA_HOME", ""))).is_absolute():
        return chosen / "qwenops"
    place = home()
    return place / ".local" / "share" / "qwenops" if place else out


def tracking_address(out: Path, placement: Placement | None = None) -> str:
    """Where a run on this machine is recorded: `MLFLOW_TRACKING_URI`, else the placement's, else the user's store."""
    named = os.environ.get(_VARIABLE) or (placement.tracking_uri if placement else "")
    return named or sqlite_address(data_folder(out) / _DATABASE)


def artifact_root(address: str, out: Path) -> Path:
    """Where the experiments of a store keep their small files, unless it is a server: beside its database."""
    database = make_url(address).database if address.startswith("sqlite") else None
    return (Path(database).absolute().parent if database else data_folder(out)) / _ARTIFACTS


def sqlite_address(database: Path) -> str:
    """The address of an SQLite file as SQLAlchemy, which reads it, writes it: `?`, `#` and `%` stay in the path."""
    # With its driver named, because MLflow makes the folder of a plain sqlite: address without decoding it.
    return URL.create("sqlite+pysqlite", database=str(database)).render_as_string()
