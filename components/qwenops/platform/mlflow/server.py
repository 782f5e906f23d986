"""What is said to an MLflow server before anything is asked of it: is it there, and how long may it take.

MLflow's client tries a dead server for minutes. While a run is opened nothing has been computed yet, so little time and
few attempts are enough there; the end of a run keeps MLflow's own patience.
"""

import contextlib
import os
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

from mlflow.exceptions import MlflowException
from mlflow.utils.credentials import get_default_host_creds
from mlflow.utils.rest_utils import http_request

from qwenops.errors import PlatformError

_ANSWER_SECONDS, _PAUSE_SECONDS, _ATTEMPTS = 5, 1.0, 3
_IMPATIENT = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2", "MLFLOW_HTTP_REQUEST_TIMEOUT": "20"}
_SERVER_ERRORS = 500


def is_server(tracking_uri: str) -> bool:
    """Whether `tracking_uri` is a server's address and not a file or a database."""
    return urlsplit(tracking_uri).scheme in ("http", "https")


def reach(tracking_uri: str) -> None:
    """Ask a server for its health; nothing where there is no server.

    Raises:
        PlatformError: no answer in three attempts of five seconds, a second apart.
    """
    if not is_server(tracking_uri):
        return
    found: object = None
    for attempt in range(_ATTEMPTS):
        time.sleep(_PAUSE_SECONDS if attempt else 0)
        try:
            # MLflow's own request knows the user's certificates, tokens and proxies.
            answer: Any = http_request(
                get_default_host_creds(tracking_uri), "/health", "GET", max_retries=0, timeout=_ANSWER_SECONDS
            )
        except (MlflowException, OSError) as error:
            found = error
        else:
            if answer.status_code < _SERVER_ERRORS:
                return
            found = f"HTTP status {answer.status_code}"
    raise PlatformError(
        f"the MLflow server {tracking_uri} does not answer",
        expected=f"an answer within {_ANSWER_SECONDS} seconds",
        found=found,
        action="start the server, correct MLFLOW_TRACKING_URI, or unset it to keep the record in the run's folder",
    )


@contextlib.contextmanager
def impatient() -> Iterator[None]:
    """MLflow's client gives up sooner in this block, unless the environment says how long it may try."""
    added = {name: value for name, value in _IMPATIENT.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            del os.environ[name]
