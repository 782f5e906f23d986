"""Read a secret by the name of the environment variable that holds it; a recipe never holds the secret itself."""

import os

from qwenops.errors import PlatformError


def read_secret(variable: str) -> str:
    """The value of `variable`, or "" when no name is given.

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
    return os.environ[variable]
