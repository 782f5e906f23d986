"""Open the engine a config asks for."""

from pathlib import Path

import torch

from qwenops.contracts.checkpoint import CHECKPOINT, read_facts
from qwenops.errors import RecipeError
from qwenops.generation.config import EngineConfig
from qwenops.generation.endpoint import EndpointEngine
from qwenops.generation.engine import Engine
from qwenops.generation.in_process import InProcessEngine
from qwenops.generation.vllm_engine import VllmEngine
from qwenops.model.checkpoints import load_model, load_tokenizer, to_device
from qwenops.model.modes import LONGEST_MULTIPLE, config_keys
from qwenops.model.warm_start import load_initial_model, load_initial_tokenizer


def open_engine(
    config: EngineConfig, checkpoint: Path | None = None, api_key: str = "", store: Path | None = None
) -> Engine:
    """Open the engine of `config`.

    Args:
        config: Which engine.
        checkpoint: The stage's own model, used when the config names none.
        api_key: Key for an endpoint, read by whoever may read secrets.
        store: Folder for an endpoint's answers.

    Raises:
        RecipeError: neither the config nor the stage has a model, or an endpoint is asked for a long-context mode.
    """
    model = config.model or (str(checkpoint) if checkpoint else "")
    if not model:
        raise RecipeError("the engine has no model", expected="engine.model, or a stage with a model", found="none")
    if config.kind == "endpoint" and config.long_context != "plain":
        raise RecipeError(
            "an endpoint decides by itself how it reads long inputs",
            expected="engine.long_context plain",
            found=config.long_context,
            action="set the mode on the server, by the keys in the model card",
        )
    if config.kind == "endpoint":
        return EndpointEngine(
            config.url,
            model,
            api=config.api,
            api_key=api_key,
            timeout_seconds=config.timeout_seconds,
            max_retries=config.max_retries,
            concurrency=config.concurrency,
            store=store,
        )
    if config.kind == "vllm":
        overrides = {}
        if config.long_context != "plain":
            trained = read_facts(Path(model)).context_length_tokens
            overrides = config_keys(config.long_context, trained, LONGEST_MULTIPLE)
        return VllmEngine(model, "bfloat16" if config.precision == "bf16" else "float32", overrides)
    folder = Path(model).expanduser()
    if (folder / CHECKPOINT).is_file() or not config.model:
        loaded, tokenizer = load_model(folder), load_tokenizer(folder)
        trained_length = read_facts(folder).context_length_tokens
    else:
        loaded, tokenizer = load_initial_model(str(folder)), load_initial_tokenizer(str(folder))
        trained_length = loaded.config.max_position_embeddings
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return InProcessEngine(
        to_device(loaded, device),
        tokenizer,
        name=_short_name(folder),
        batch_tokens=config.batch_tokens,
        precision=config.precision,
        long_context=config.long_context,
        trained_length=trained_length,
    )


def _short_name(folder: Path) -> str:
    """`sft_seed/3f9a...` for an artifact: the node and the fingerprint say which model it was."""
    return "/".join(folder.parts[-2:])
