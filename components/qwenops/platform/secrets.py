"""Secrets are known by the name of an environment variable; their values are taken out of all that is written down.

A recipe and a placement hold names only. Two kinds of variable count as secret here: those the context names
(`QWENOPS_SECRETS`, which a placement's `secret_env` fills), and those whose name says so (a word of `_SECRET_WORDS`).
Logs, the run's events and every text that goes to MLflow pass through `redact`.
"""

import os
import re
from collections.abc import Mapping
from typing import Any

from qwenops.errors import PlatformError
from qwenops.recipe.codec import Plain

NAMES_VARIABLE = "QWENOPS_SECRETS"
MASK = "***"
_SECRET_WORDS = re.compile(
    r"(?:^|_)(?:SECRET|TOKEN|PASSWORD|PASSWD|CREDENTIALS?|API_?KEY|ACCESS_KEY|PRIVATE_KEY)(?:_|$)", re.IGNORECASE
)
# Names a place and not the secret itself.
_NO_SECRET = re.compile(r"_(?:FILE|PATH|DIR|URI|URL|NAME)$", re.IGNORECASE)
# A shorter value is a switch ("true", "1") and would take ordinary words out of a text.
_LEAST_LENGTH = 8
_URL_PASSWORD = re.compile(r"(://[^/\s:@]*:)[^/\s@]+@")


def read_secret(variable: str) -> str:
    """The value of `variable`, or "" when no name is given; it is taken out of logs from now on.

    Raises:
        PlatformError: the variable is not set here.
    """
    if not variable:
        return ""
    if variable not in os.environ:
        raise PlatformError(
            f"the secret {variable} is not set",
            expected=f"an environment variable {variable}",
            found="unset",
            action="set it for this process, or mount the Kubernetes secret that holds it",
        )
    names = set(filter(None, os.environ.get(NAMES_VARIABLE, "").split(",")))
    os.environ[NAMES_VARIABLE] = ",".join(sorted(names | {variable}))
    return os.environ[variable]


def secret_values(environment: Mapping[str, str] | None = None) -> dict[str, str]:
    """Name to value of every environment variable that holds a secret."""
    env = os.environ if environment is None else environment
    named = set(filter(None, env.get(NAMES_VARIABLE, "").split(",")))
    return {
        name: value
        for name, value in env.items()
        if len(value) >= _LEAST_LENGTH
        and (name in named or (_SECRET_WORDS.search(name) and not _NO_SECRET.search(name)))
    }


def redact(text: str) -> str:
    """`text` with every secret value, and every password inside a URL, replaced by `MASK`."""
    # A longer value may contain a shorter one.
    for value in sorted(secret_values().values(), key=len, reverse=True):
        text = text.replace(value, MASK)
    return _URL_PASSWORD.sub(rf"\g<1>{MASK}@", text)


def redact_all(data: Mapping[str, Any]) -> dict[str, Any]:
    """Plain data with every text redacted at any depth, keys included."""
    return {redact(str(key)): _redacted(value) for key, value in data.items()}


def _redacted(value: Plain) -> Plain:
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, Mapping):
        return redact_all(value)
    if isinstance(value, list | tuple):
        return [_redacted(item) for item in value]
    return value
