"""Load and save checkpoints as folders that stock transformers reads.

`save_pretrained` does the work; this module adds what a reader of another version needs (the legacy names
`rope_theta` and `torch_dtype` beside the `rope_parameters` and `dtype` of transformers 5), the generation settings, and
the facts of `contracts.checkpoint`. Experts are written one by one under their hub names by transformers itself.
"""

import json
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging as transformers_logging

from qwenops.contracts.checkpoint import CheckpointFacts, read_facts, write_facts
from qwenops.errors import ContractError
from qwenops.model import sdpa

# The console belongs to platform.progress; transformers would draw bars of its own across it.
transformers_logging.disable_progress_bar()

END_OF_TEXT, IM_END = "<|endoftext|>", "<|im_end|>"

Model = TypeVar("Model", bound=PreTrainedModel)


def load_model(path: Path, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    """Load a checkpoint's model on the CPU, in evaluation mode, with SDPA attention.

    Raises:
        ContractError: the folder breaks the checkpoint contract.
    """
    read_facts(path)
    return AutoModelForCausalLM.from_pretrained(path, dtype=dtype, attn_implementation=sdpa.NAME).eval()


def to_device(model: Model, to: str | torch.device | torch.dtype) -> Model:
    """`model` itself, on a device or in a dtype."""
    model.to(to)  # pyright: ignore[reportArgumentType]  # transformers' wrapper of `to` loses `self`
    return model


def load_tokenizer(path: Path) -> PreTrainedTokenizerBase:
    """Load the tokenizer of a checkpoint or of a tokenizer artifact.

    Raises:
        ContractError: there is none.
    """
    if not (path / "tokenizer.json").is_file():
        raise ContractError(
            f"no tokenizer in {path}",
            expected="tokenizer.json",
            found="no such file",
            action="run the tokenizer stage again",
        )
    return AutoTokenizer.from_pretrained(path)


def load_config(path: Path) -> PretrainedConfig:
    """The `config.json` of a checkpoint."""
    return AutoConfig.from_pretrained(path)


def copy_tokenizer(path: Path, to: Path) -> PreTrainedTokenizerBase:
    """Write the tokenizer of `path` into `to`, too; returns it.

    Raises:
        ContractError: there is none.
    """
    tokenizer = load_tokenizer(path)
    tokenizer.save_pretrained(to)
    return tokenizer


def save_checkpoint(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    out: Path,
    context_length_tokens: int,
    tokens_seen: int,
    parent: str = "",
    *,
    kind: Literal["base", "chat"] = "base",
    dtype: torch.dtype | None = None,
) -> CheckpointFacts:
    """Write `model` and `tokenizer` into `out`, which may exist.

    Args:
        model: A Qwen2 or Qwen2-MoE model; its config is left as it was.
        tokenizer: Tokenizer that knows `<|endoftext|>` and, for a chat model, `<|im_end|>`.
        out: Folder to write into.
        context_length_tokens: Longest sequence the weights were trained at.
        tokens_seen: Tokens trained on so far, ancestors included.
        parent: Name of the checkpoint this one continues.
        kind: A base model ends on `<|endoftext|>`, a chat model on `<|im_end|>` too and samples by default.
        dtype: Type the weights are written in; None keeps the model's own.

    Returns:
        The facts written beside the model.
    """
    state = model.state_dict()
    if dtype is not None:
        state = {name: tensor.to(dtype) if tensor.is_floating_point() else tensor for name, tensor in state.items()}
    model.save_pretrained(out, state_dict=state)
    tokenizer.save_pretrained(out)
    _generation_config(tokenizer, kind).save_pretrained(out)
    rope_theta = float(model.config.rope_parameters["rope_theta"])
    _amend_config(out, tokenizer, kind, dtype or model.dtype)
    facts = CheckpointFacts(context_length_tokens, rope_theta, tokens_seen, parent)
    write_facts(out, facts)
    return facts


def _generation_config(tokenizer: PreTrainedTokenizerBase, kind: Literal["base", "chat"]) -> GenerationConfig:
    end, turn = (tokenizer.convert_tokens_to_ids(token) for token in (END_OF_TEXT, IM_END))
    if kind == "base":
        return GenerationConfig(eos_token_id=end, pad_token_id=end, do_sample=False)
    # The published settings of the instruct models.
    return GenerationConfig(
        eos_token_id=[turn, end],
        pad_token_id=end,
        do_sample=True,
        temperature=0.7,
        top_p=0.8,
        top_k=20,
        repetition_penalty=1.05,
    )


def with_legacy_names(config: dict[str, Any], dtype: torch.dtype) -> dict[str, Any]:
    """`config.json` with the names that transformers 4 reads beside those of transformers 5, which reads both."""
    name = str(dtype).removeprefix("torch.")
    rope = config["rope_parameters"]
    named = config | {"rope_theta": float(rope["rope_theta"]), "dtype": name, "torch_dtype": name}
    scaling = {key: value for key, value in rope.items() if key != "rope_theta"}
    if scaling["rope_type"] != "default":
        named["rope_scaling"] = {"type": scaling["rope_type"], **scaling}
    return named


def _amend_config(
    out: Path, tokenizer: PreTrainedTokenizerBase, kind: Literal["base", "chat"], dtype: torch.dtype
) -> None:
    path = out / "config.json"
    end, turn = (tokenizer.convert_tokens_to_ids(token) for token in (END_OF_TEXT, IM_END))
    config = with_legacy_names(json.loads(path.read_text(encoding="utf-8")), dtype)
    config |= {"bos_token_id": end, "eos_token_id": turn if kind == "chat" else end}
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
