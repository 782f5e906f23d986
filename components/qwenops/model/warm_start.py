"""Start from somebody else's weights: a transformers folder, a hub id or a GGUF file, as a Qwen2 model.

Llama's layers are Qwen2's without the biases of q, k and v, so a Llama-shaped model is a Qwen2 model whose biases are
zero, and its logits stay the same to the last bit. GGUF files are read by transformers' own loader, which restores
quantised tensors to float32.

Every difference between what is loaded and what is expected is an error here: transformers itself draws missing
tensors at random and goes on.
"""

from pathlib import Path
from typing import Any

import gguf
import torch
from tokenizers import pre_tokenizers
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from qwenops.errors import ContractError, PlatformError, RecipeError
from qwenops.model import sdpa
from qwenops.model.architecture import SHARED_FIELDS
from qwenops.model.weight_files import INDEX, SINGLE, WeightReader
from qwenops.recipe.addresses import split_hub_id

_MODEL_TYPES = ("qwen2", "qwen2_moe", "llama")
_GGUF_SUFFIX, _GGUF_MAGIC = ".gguf", b"GGUF"
_PROJECTIONS = ("q", "k", "v")


def load_initial_model(source: str) -> PreTrainedModel:
    """The model at `source` as a Qwen2 (or Qwen2-MoE) model: float32, on the CPU, in evaluation mode.

    Args:
        source: A transformers folder, a `.gguf` file, or a hub id with or without `@revision`.

    Raises:
        RecipeError: `source` names nothing, or a model that is not Qwen2 or Llama-shaped.
        ContractError: the files are broken or incomplete.
        PlatformError: the hub cannot be reached.
    """
    options = _options(source)
    config = _load(AutoConfig, source, options)
    if config.model_type not in _MODEL_TYPES:
        raise RecipeError(
            f"{source} cannot become a Qwen2 model",
            expected=f"one of {', '.join(_MODEL_TYPES)}",
            found=config.model_type,
            action="start from a Qwen2 or Llama-shaped model",
        )
    options |= {"dtype": torch.float32, "attn_implementation": sdpa.NAME, "output_loading_info": True}
    model, report = _load(AutoModelForCausalLM, source, options)
    missing = sorted(report["missing_keys"])
    if missing or report["mismatched_keys"]:
        raise ContractError(
            f"the weights of {source} are incomplete",
            expected=f"every tensor of its config, {missing[0] if missing else 'in the right shape'} among them",
            found=f"{len(missing)} missing, {len(report['mismatched_keys'])} of another shape",
            action="download or convert the model again",
        )
    return to_qwen2(model).eval() if isinstance(model, LlamaForCausalLM) else model.eval()


def load_initial_tokenizer(source: str) -> PreTrainedTokenizerFast:
    """The tokenizer that belongs to the weights at `source`.

    Raises:
        RecipeError: `source` names nothing.
        ContractError: there is no tokenizer, or it is unreadable.
        PlatformError: the hub cannot be reached.
    """
    tokenizer = _load(AutoTokenizer, source, _options(source))
    if source.endswith(_GGUF_SUFFIX) and _gguf_text(Path(source), "tokenizer.ggml.pre") == "smollm":
        # transformers leaves out the first step, which cuts digits off the spaces before them.
        tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
        )
    return tokenizer


def to_qwen2(llama: LlamaForCausalLM) -> Qwen2ForCausalLM:
    """A Qwen2 model with the weights of `llama` (shared, not copied) and zero biases; the same logits.

    Raises:
        RecipeError: `llama` has what Qwen2 has not: other biases, another activation, scaled RoPE, odd heads.
    """
    old: Any = llama.config
    odd = {
        "attention_bias": bool(old.attention_bias),
        "mlp_bias": bool(old.mlp_bias),
        "hidden_act": old.hidden_act != "silu",
        "rope_type": old.rope_parameters["rope_type"] != "default",
        "head_dim": old.head_dim * old.num_attention_heads != old.hidden_size,
    }
    if any(odd.values()):
        raise RecipeError(
            "this Llama model is no Qwen2 model",
            expected="no biases, SiLU, plain RoPE, heads that divide the hidden size",
            found=", ".join(name for name, is_odd in odd.items() if is_odd),
            action="start from another model",
        )
    config = Qwen2Config(
        **{name: getattr(old, name) for name in SHARED_FIELDS},
        rms_norm_eps=float(f"{old.rms_norm_eps:.6g}"),  # a GGUF holds 9.99999975e-06 for 1e-5: one float32
        use_sliding_window=False,
    )
    state = dict(llama.state_dict())
    for layer in range(old.num_hidden_layers):
        for name in _PROJECTIONS:
            prefix = f"model.layers.{layer}.self_attn.{name}_proj"
            state[f"{prefix}.bias"] = state[f"{prefix}.weight"].new_zeros(state[f"{prefix}.weight"].shape[0])
    with torch.device("meta"):
        model = Qwen2ForCausalLM._from_config(config, attn_implementation=sdpa.NAME)
    model.load_state_dict(state, strict=True, assign=True)
    model.tie_weights()
    model.model.rotary_emb = type(model.model.rotary_emb)(model.config)
    return model


def _options(source: str) -> dict[str, Any]:
    """Check what can be checked before loading; returns the loader's extra arguments."""
    path = Path(source)
    if path.suffix == _GGUF_SUFFIX:
        _check_gguf(path)
        return {"gguf_file": path.name}
    if path.is_dir():
        if (path / SINGLE).is_file() or (path / INDEX).is_file():
            WeightReader(path)
        return {}
    if (hub := split_hub_id(source)) is None:
        raise RecipeError(
            f"no model at {source}",
            expected="a transformers folder, a .gguf file or a hub id (owner/name or owner/name@revision)",
            found="no such file or folder",
            action="check init_from",
        )
    return {"revision": hub[1]} if hub[1] else {}


def _load(kind: Any, source: str, options: dict[str, Any]) -> Any:
    place = str(Path(source).parent) if "gguf_file" in options else source
    if "revision" in options:
        place = source.partition("@")[0]
    try:
        return kind.from_pretrained(place, **options)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        if Path(source).exists():
            raise ContractError(
                f"{source} cannot be loaded",
                expected=f"what {kind.__name__} of transformers reads",
                found=error,
                action="download or convert the model again",
            ) from error
        raise PlatformError(
            f"cannot fetch {source}",
            expected="a model and revision that the Hub gives to anybody, or to the holder of HF_TOKEN",
            found=error,
            action="check the id, its revision and HF_TOKEN, or download the model elsewhere and give its folder",
        ) from error


def _check_gguf(path: Path) -> None:
    if not path.is_file():
        raise RecipeError(f"no model at {path}", expected="a GGUF file", found="no such file", action="check init_from")
    with path.open("rb") as stream:
        magic = stream.read(4)
    if magic != _GGUF_MAGIC:
        raise ContractError(
            f"{path} is no GGUF file", expected="GGUF as its first bytes", found=magic, action="download it again"
        )
    if (kind := _gguf_text(path, "general.architecture")) not in ("llama", "qwen2", "qwen2moe"):
        raise RecipeError(
            f"{path} holds another kind of model",
            expected="architecture llama, qwen2 or qwen2moe",
            found=kind,
            action="start from a Qwen2 or Llama-shaped model",
        )


def _gguf_text(path: Path, key: str) -> str:
    try:
        field = gguf.GGUFReader(path).get_field(key)
        return str(field.contents()) if field else ""
    except (ValueError, IndexError, KeyError, OSError) as error:
        raise ContractError(
            f"unreadable GGUF: {path}",
            expected="a complete file",
            found=error,
            action="download it again; compare its size and checksum",
        ) from error
