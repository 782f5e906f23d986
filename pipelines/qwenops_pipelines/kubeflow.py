"""Reach a Kubeflow Pipelines back end: address, token, namespace; its errors in words that say what to do."""

import contextlib
import io
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

import kfp
import kfp_server_api
import urllib3
from kfp.client import ServiceAccountTokenVolumeCredentials

from qwenops.errors import PlatformError

HOST, TOKEN, TOKEN_FILE = "KF_PIPELINES_ENDPOINT", "KFP_TOKEN", "KFP_TOKEN_FILE"
_PROJECTED_TOKEN = "KF_PIPELINES_SA_TOKEN_PATH"
_SECONDS = 20
_REFUSED = {
    401: ("a token that the back end accepts", f"renew {TOKEN} or the file that {TOKEN_FILE} names"),
    403: ("permission in this namespace", "ask for the role kubeflow-edit there, or give another --namespace"),
    404: ("an object that exists", "check --host, --namespace and --experiment"),
    409: ("a name that is free, or what has it ready for use", "wait a moment, or delete what has the name in the UI"),
}


def connect(host: str, namespace: str) -> Any:
    """Return a client of the back end.

    Args:
        host: Address; empty takes `KF_PIPELINES_ENDPOINT`, and without that the service inside the cluster.
        namespace: The user's namespace; empty where the back end has one user.

    Raises:
        PlatformError: it cannot be reached, or refuses the token.
    """
    host = host or os.environ.get(HOST, "")
    token = _token()
    if host:
        _knock(host, token)
    projected = os.environ.get(_PROJECTED_TOKEN, "")
    credentials = ServiceAccountTokenVolumeCredentials(projected) if projected and not token else None
    options: dict[str, Any] = {"host": host or None, "existing_token": token or None, "credentials": credentials}
    options |= {"namespace": namespace} if namespace else {}
    with translate_errors(host), silence_client():
        return kfp.Client(**options)


@contextlib.contextmanager
def translate_errors(host: str) -> Iterator[None]:
    """Turn the client's exceptions into `PlatformError`."""
    try:
        yield
    except kfp_server_api.ApiException as error:
        expected, action = _REFUSED.get(
            int(error.status or 0), ("an answer", "look at the log of ml-pipeline, then try again")
        )
        raise PlatformError(
            f"Kubeflow refused the request with status {error.status}",
            expected=expected,
            found=str(error.body or error.reason).strip()[:400],
            action=action,
        ) from error
    except (urllib3.exceptions.HTTPError, TimeoutError) as error:
        raise _unreachable(host, error) from error


@contextlib.contextmanager
def silence_client() -> Iterator[None]:
    """Without the client's own lines and its notice about versions."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        yield


def _token() -> str:
    file = os.environ.get(TOKEN_FILE, "")
    if not file:
        return os.environ.get(TOKEN, "")
    try:
        return Path(file).read_text(encoding="utf-8").strip()
    except OSError as error:
        raise PlatformError(
            "no token", expected=f"a readable file in {TOKEN_FILE}", found=error, action="mount the secret there"
        ) from None


def _knock(host: str, token: str) -> None:
    """One request before the client is made, which would try for half a minute before it gives up."""
    address = host if host.startswith("http") else f"https://{host}"
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    try:
        request = Request(f"{address.rstrip('/')}/apis/v2beta1/healthz", headers=headers)
        with urlopen(request, timeout=_SECONDS) as answer:
            kind = str(answer.headers.get("Content-Type", ""))
    except HTTPError as error:
        with translate_errors(host):
            raise kfp_server_api.ApiException(status=error.code, reason=error.reason) from None
    except (URLError, TimeoutError, ValueError) as error:
        raise _unreachable(host, error) from None
    if "html" in kind:
        raise PlatformError(
            f"{host} answered with a page, probably a login",
            expected="the Kubeflow Pipelines API",
            found=kind,
            action=f"give a token in {TOKEN}, or the address of ml-pipeline itself as --host",
        )


def _unreachable(host: str, error: Any) -> PlatformError:
    return PlatformError(
        f"Kubeflow cannot be reached at {host or 'the address inside the cluster'}",
        expected="an answer from ml-pipeline",
        found=error,
        action=f"check --host or {HOST}; from outside: kubectl -n kubeflow port-forward svc/ml-pipeline 8888",
    )
