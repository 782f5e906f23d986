"""Upcycle a model folder into another one, file by file, on a machine that could not hold the result in memory.

One layer's dense FFN, one expert and one output file are in memory at a time, however many layers and experts there
are. The numbers are those of `upcycling.upcycle`, bit for bit. Experts are written one by one under their
hub names, which every version of transformers with Qwen2-MoE loads.
"""

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, Qwen2MoeConfig

from qwenops.contracts.checkpoint import CHECKPOINT
from qwenops.errors import PlatformError, RecipeError
from qwenops.model.checkpoints import with_legacy_names
from qwenops.model.upcycling import FeedForward, Upcycling, moe_config, num_copies, upcycled_layer
from qwenops.model.weight_files import WeightReader, WeightWriter

_FFN = re.compile(r"model\.layers\.\d+\.mlp\.")
_LAYER = re.compile(r"model\.layers\.(\d+)\.")
_WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".gguf", ".h5", ".index.json")


@dataclass(frozen=True)
class Upcycled:
    """Account of an upcycling: copies of each dense FFN, parameters and bytes written."""

    copies: int
    parameters: int
    weight_bytes: int


@torch.no_grad()
def upcycle_folder(
    dense: Path, out: Path, how: Upcycling, *, shard_bytes: int = 5 * 10**9, on_layer: Callable[[int, int], None]
) -> Upcycled:
    """Write the mixture made from the dense Qwen2 model in `dense` into the new folder `out`.

    Args:
        dense: A transformers folder with safetensors, in one file or several.
        out: Must not exist; it appears when it is complete.
        how: Layout and draws.
        shard_bytes: Size of an output file, and the bulk of the memory needed.
        on_layer: Called with (layers done, layers) after each layer.

    Raises:
        RecipeError: `out` exists, or `dense` is no dense Qwen2 model.
        ContractError: the weights are broken or incomplete.
        PlatformError: the result does not fit on the disk.
    """
    if out.exists():
        raise RecipeError(
            f"{out} exists already", expected="a new folder", found="an old one", action="remove it or name another"
        )
    config, weights = _dense_config(dense), WeightReader(dense)
    target = moe_config(config, how.experts)
    dtype = weights["model.norm.weight"].dtype
    _check_room(out, target, dtype)
    draft = out.with_name(f".{out.name}.draft")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    try:
        _copy_companions(dense, draft)
        _write_config(target, dtype, draft)
        writer = WeightWriter(draft, shard_bytes)
        parameters = _write_weights(weights, writer, how, config.num_hidden_layers, on_layer)
        draft.replace(out)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    copies = num_copies(how.experts.num_experts, how.experts.expert_width, config.intermediate_size)
    return Upcycled(copies, parameters, writer.total_bytes)


def _write_weights(
    weights: WeightReader, writer: WeightWriter, how: Upcycling, num_layers: int, on_layer: Callable[[int, int], None]
) -> int:
    """Write all tensors, those of a layer together; returns the number of parameters."""
    kept: dict[int, list[str]] = {}
    for name in weights:
        if not _FFN.match(name):
            layer = _LAYER.match(name)
            kept.setdefault(int(layer.group(1)) if layer else -1, []).append(name)
    parameters = 0
    for layer in range(-1, num_layers):
        for name in sorted(kept.get(layer, [])):
            parameters += weights[name].numel()
            writer.add(name, weights[name])
        if layer >= 0:
            prefix = f"model.layers.{layer}.mlp."
            source = FeedForward(*(weights[f"{prefix}{name}_proj.weight"] for name in ("gate", "up", "down")))
            for name, tensor in upcycled_layer(source, how, layer):
                parameters += tensor.numel()
                writer.add(prefix + name, tensor)
            on_layer(layer + 1, num_layers)
    writer.close()
    return parameters


def _dense_config(folder: Path) -> Any:
    if not (folder / "config.json").is_file():
        raise RecipeError(
            f"no model at {folder}",
            expected="a folder with config.json and safetensors",
            found="no config.json",
            action="give the folder of a dense Qwen2 model",
        )
    config = AutoConfig.from_pretrained(folder)
    if config.model_type != "qwen2":
        raise RecipeError(
            f"{folder} cannot be upcycled",
            expected="a dense model of type qwen2",
            found=config.model_type,
            action="start from a dense Qwen2 checkpoint",
        )
    return config


def _check_room(out: Path, target: Any, dtype: torch.dtype) -> None:
    h, layers = target.hidden_size, target.num_hidden_layers
    wide = target.num_experts * target.moe_intermediate_size + target.shared_expert_intermediate_size
    needed = 3 * layers * h * wide * dtype.itemsize
    out.parent.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(out.parent).free
    if free < needed:
        raise PlatformError(
            f"{out.parent} has too little room",
            expected=f"{needed / 1e9:.0f} GB for the experts alone",
            found=f"{free / 1e9:.0f} GB free",
            action="write to another disk",
        )


def _copy_companions(dense: Path, draft: Path) -> None:
    """Everything that is neither weights nor config: tokenizer, generation settings, facts, licence."""
    for path in sorted(dense.iterdir()):
        if path.is_file() and path.name != "config.json" and not path.name.endswith(_WEIGHTS):
            shutil.copyfile(path, draft / path.name)
    if (draft / CHECKPOINT).is_file():
        facts = json.loads((draft / CHECKPOINT).read_text(encoding="utf-8")) | {"parent": dense.name}
        (draft / CHECKPOINT).write_text(json.dumps(facts, indent=1, sort_keys=True), encoding="utf-8")


def _write_config(target: Qwen2MoeConfig, dtype: torch.dtype, draft: Path) -> None:
    target.architectures = ["Qwen2MoeForCausalLM"]
    plain = with_legacy_names(json.loads(target.to_json_string(use_diff=False)), dtype)
    (draft / "config.json").write_text(json.dumps(plain, indent=2, sort_keys=True) + "\n", encoding="utf-8")
