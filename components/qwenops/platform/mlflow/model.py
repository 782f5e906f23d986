"""Make a folder that transformers loads an MLflow model, too, without moving a weight.

MLflow's transformers flavor reads its weights from the folder that `model_binary` names, here the folder itself, and
the tokenizer from `components/tokenizer`, which is the one thing that is written twice. What is written depends on
the model alone and on no clock, so equal models give equal folders.
"""

import json
from importlib.metadata import version
from pathlib import Path
from platform import python_version

from mlflow import pyfunc
from mlflow.models import Model, ModelSignature
from mlflow.types.llm import CHAT_MODEL_INPUT_SCHEMA, CHAT_MODEL_OUTPUT_SCHEMA

from qwenops.model.checkpoints import copy_tokenizer, load_config

MODEL_FILE = "MLmodel"
_TASK = "llm/v1/chat"
_PACKAGES = ("mlflow", "transformers", "torch", "accelerate")
_REQUIREMENTS, _ENVIRONMENT = "requirements.txt", "python_env.yaml"


def write_mlflow_model(folder: Path, fingerprint: str) -> None:
    """Write `MLmodel` and what it names into `folder`.

    `mlflow.pyfunc.load_model` then answers OpenAI's chat requests and `mlflow.transformers.load_model` gives a
    pipeline.

    Args:
        folder: A chat model with its tokenizer, as transformers reads it.
        fingerprint: Hexadecimal identity of the model; becomes MLflow's uuid of it.
    """
    config, tokenizer = load_config(folder), copy_tokenizer(folder, folder / "components" / "tokenizer")
    architectures = config.architectures or []
    model = Model(
        signature=ModelSignature(CHAT_MODEL_INPUT_SCHEMA, CHAT_MODEL_OUTPUT_SCHEMA),
        model_uuid=fingerprint[:32],
        metadata={"task": _TASK},
    )
    pyfunc.add_to_model(model, loader_module="mlflow.transformers", python_env=_ENVIRONMENT)
    model.add_flavor(
        "transformers",
        transformers_version=version("transformers"),
        code=None,
        task="text-generation",
        inference_task=_TASK,
        instance_type="TextGenerationPipeline",
        pipeline_model_type=architectures[0],
        model_binary=".",
        torch_dtype=str(config.dtype),
        components=["tokenizer"],
        tokenizer_type=type(tokenizer).__name__,
    )
    plain = {name: value for name, value in model.to_dict().items() if name != "utc_time_created"}
    # YAML reads JSON.
    _write(folder / MODEL_FILE, json.dumps(plain, indent=1, sort_keys=True))
    _write(folder / _REQUIREMENTS, "\n".join(f"{name}=={version(name).partition('+')[0]}" for name in _PACKAGES))
    _write(folder / _ENVIRONMENT, json.dumps({"python": python_version(), "dependencies": [f"-r {_REQUIREMENTS}"]}))


def _write(path: Path, text: str) -> None:
    path.write_text(text + "\n", encoding="utf-8")
