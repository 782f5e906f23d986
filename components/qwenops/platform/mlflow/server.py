"""What is said to an MLflow server or database before anything is asked of it: is it there, and how long may it take.

MLflow's client asks a server that is gone for minutes, call by call, and a database for a minute and a half before the
first. A record is worth seconds: whoever logs asks here first, and then gives each call a bounded time.
"""

import contextlib
import os
import time
from collections.abc import Generator
from pathlib import Path
from urllib.parse import urlsplit

import sqlalchemy
from filelock import FileLock
from mlflow.exceptions import MlflowException
from mlflow.store.tracking import DEFAULT_LOCAL_FILE_AND_ARTIFACT_PATH
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
from mlflow.utils.credentials import get_default_host_creds
from mlflow.utils.rest_utils import http_request
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import SQLAlchemyError

from qwenops.errors import PlatformError
from qwenops.platform.secrets import redact

# House choice: a server in another town answers within a second, and two that a restart takes are worth waiting for.
ANSWER_SECONDS, _PAUSE_SECONDS, _ATTEMPTS = 5, 1.0, 2
# House choice: a batch of 900 points took a third of a second on a busy machine.
_FEW_RETRIES = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1"}
_SHORT = {"MLFLOW_HTTP_REQUEST_TIMEOUT": "10"}
_SERVER_ERRORS = 500
# Making all tables took 2 seconds, and a minute beside eight busy processes.
_TABLES_SECONDS = 120
# By the name that each driver gives the longest time to connect; SQLite's is that of waiting for another's lock.
_CONNECT_SECONDS = {
    "postgresql": "connect_timeout",
    "mysql": "connect_timeout",
    "mssql": "timeout",
    "sqlite": "timeout",
}


def is_server(tracking_uri: str) -> bool:
    """Whether `tracking_uri` is a server's address and not a file or a database."""
    return urlsplit(tracking_uri).scheme in ("http", "https")


def check_reachable(tracking_uri: str, attempts: int = _ATTEMPTS) -> None:
    """Ask a server for its health, or connect to a database; an SQLite file that is new gets MLflow's tables.

    Args:
        tracking_uri: MLflow's tracking URI.
        attempts: How often, a second apart; a file of this machine is asked once.

    Raises:
        PlatformError: no answer within `ANSWER_SECONDS` each time.
    """
    database = _database(tracking_uri)
    if database is None and not is_server(tracking_uri):
        return
    found: object = None
    for attempt in range(1 if database is not None and database.get_backend_name() == "sqlite" else attempts):
        time.sleep(_PAUSE_SECONDS if attempt else 0)
        found = _connect(database) if database is not None else _health(tracking_uri)
        if found is None:
            return
    raise PlatformError(
        f"{'the MLflow server' if database is None else 'the MLflow database'} {redact(tracking_uri)} does not answer",
        expected=f"an answer within {ANSWER_SECONDS} seconds",
        found=found,
        action="start it, correct MLFLOW_TRACKING_URI, or unset that for the store below XDG_DATA_HOME or your home",
    )


@contextlib.contextmanager
def short_timeouts(*, uploading: bool = False) -> Generator[None]:
    """MLflow's client gives up sooner in this block, unless the environment says how long it may try.

    Args:
        uploading: Large files are sent, whose answer comes when the server has stored them: MLflow's own two minutes.
    """
    bounds = _FEW_RETRIES if uploading else _FEW_RETRIES | _SHORT
    added = {name: value for name, value in bounds.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            del os.environ[name]


def _health(address: str) -> object:
    """What is wrong with the server, or None."""
    try:
        # MLflow's own request knows the user's certificates, tokens and proxies.
        answer = http_request(get_default_host_creds(address), "/health", "GET", max_retries=0, timeout=ANSWER_SECONDS)
    except (MlflowException, OSError) as error:
        return error
    return None if answer.status_code < _SERVER_ERRORS else f"HTTP status {answer.status_code}"


def _database(tracking_uri: str) -> URL | None:
    try:
        url = make_url(tracking_uri)
    except SQLAlchemyError:
        return None
    return url if url.get_backend_name() in _CONNECT_SECONDS else None


def _connect(url: URL) -> object:
    """What is wrong with the database, or None."""
    kind = url.get_backend_name()
    try:
        if kind == "sqlite" and url.database:
            Path(url.database).parent.mkdir(parents=True, exist_ok=True)
        engine = sqlalchemy.create_engine(url, connect_args={_CONNECT_SECONDS[kind]: ANSWER_SECONDS})
        engine.connect().close()
        engine.dispose()
        if kind == "sqlite" and url.database:
            _make_tables(url)
    except (SQLAlchemyError, MlflowException, OSError, ImportError) as error:
        return error.__cause__ or error
    return None


def _make_tables(url: URL) -> None:
    """MLflow's tables, by one process at a time: MLflow itself looks whether they are there and then makes them."""
    with FileLock(f"{url.database}.lock", timeout=_TABLES_SECONDS):
        SqlAlchemyStore(url.render_as_string(hide_password=False), DEFAULT_LOCAL_FILE_AND_ARTIFACT_PATH)
