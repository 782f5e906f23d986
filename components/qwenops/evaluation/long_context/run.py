"""Score a checkpoint up to several times its context length, in every long-context mode."""

import json
from dataclasses import asdict
from pathlib import Path

import torch
from transformers import PreTrainedModel

from qwenops.contracts.checkpoint import read_facts
from qwenops.contracts.tokens import TokenShards
from qwenops.evaluation.long_context.config import LongContextConfig
from qwenops.evaluation.long_context.grid import (
    NeedleCell,
    TextLoss,
    heldout_text,
    needle_rows_by_depth,
    score_needles,
    score_text,
    text_windows,
)
from qwenops.model.checkpoints import load_model, load_tokenizer, to_device
from qwenops.model.dual_chunk import DualChunk
from qwenops.model.modes import long_context_mode
from qwenops.platform.stage.handle import Stage
from qwenops.training.precision import compute_dtype
from qwenops.training.threads import tune_threads

# Longer rows scale with the threads as these do, and may take minutes.
_PROBED_TOKENS = 4096


def run(config: LongContextConfig, *, checkpoint: Path, tokens: Path, stage: Stage) -> None:
    """Write `grid.json` (cells by mode, length and depth; text loss) and `summary.md` into `stage.out`."""
    trained = read_facts(checkpoint).context_length_tokens
    device = torch.device("cuda" if stage.context.use_gpu == "yes" else "cpu")
    model = to_device(load_model(checkpoint, compute_dtype(device, config.precision)), device)
    if device.type == "cpu":
        row = torch.zeros((1, min(max(config.multiples) * trained, _PROBED_TOKENS)), dtype=torch.long)
        tune_threads(lambda: _probe(model, row))
    cells, losses = _evaluate(config, model, load_tokenizer(checkpoint), TokenShards(tokens), trained, stage)
    stage.records = sum(cell.needles for cell in cells)
    stage.metric("niah.context_length_tokens", trained)
    for mode in config.modes:
        for multiple in config.multiples:
            found = [cell for cell in cells if (cell.mode, cell.multiple) == (mode, multiple)]
            needles = sum(cell.needles for cell in found)
            hits = sum(cell.accuracy * cell.needles for cell in found)
            stage.metric(f"niah.{mode}.{multiple}x.accuracy", hits / needles)
            stage.metric(f"niah.{mode}.{multiple}x.needles", needles)
    for loss in losses:
        stage.metric(f"loss.{loss.mode}.{loss.multiple}x", loss.loss)
    _write(config, cells, losses, trained, stage)


@torch.inference_mode()
def _probe(model: PreTrainedModel, row: torch.Tensor) -> None:
    """A row through the decoder, to choose the number of threads by."""
    model.model(row)


def _evaluate(
    config: LongContextConfig,
    model: PreTrainedModel,
    tokenizer: object,
    shards: TokenShards,
    trained: int,
    stage: Stage,
) -> tuple[list[NeedleCell], list[TextLoss]]:
    longest = max(config.multiples) * trained
    # Enough for windows that do not overlap, where there is that much: neighbours in one document are one sample.
    text = heldout_text(shards, (config.text_tokens // trained + 2) * longest)
    prose = text_windows(text, trained, longest, config.text_tokens)
    scheme = DualChunk(trained, max(1, round(config.local_share * trained)))
    rows_read = len(config.depths) * config.needles_per_depth + len(prose)
    total = sum(config.multiples) * trained * len(config.modes) * rows_read
    cells, losses = list[NeedleCell](), list[TextLoss]()
    with stage.progress(total, "tokens") as progress:
        for multiple in config.multiples:
            length = multiple * trained
            rows = needle_rows_by_depth(tokenizer, text, length, config.depths, config.needles_per_depth, stage.seed)
            for mode in config.modes:
                with long_context_mode(model, mode, length, trained_length=trained, scheme=scheme):
                    for cell in score_needles(model, rows, mode, multiple):
                        cells.append(cell)
                        progress.advance(cell.needles * length, f"{mode} at {multiple}x")
                    losses.append(score_text(model, prose, trained=trained, mode=mode, multiple=multiple))
                    progress.advance(len(prose) * length)
    return cells, losses


def _write(
    config: LongContextConfig, cells: list[NeedleCell], losses: list[TextLoss], trained: int, stage: Stage
) -> None:
    grid = {
        "context_length_tokens": trained,
        "modes": config.modes,
        "multiples": config.multiples,
        "depths": config.depths,
        "cells": [asdict(cell) for cell in cells],
        "text": [asdict(loss) for loss in losses],
    }
    (stage.out / "grid.json").write_text(json.dumps(grid, indent=1), encoding="utf-8")
    lines = [
        "# Long context",
        "",
        f"Trained at {trained} tokens. Needle accuracy, and loss (nats per token) on the same held-out tokens.",
        "",
        "| mode | " + " | ".join(f"{multiple}x needles / loss" for multiple in config.multiples) + " |",
        "|---|" + "---|" * len(config.multiples),
    ]
    for mode in config.modes:
        shown = [
            f"{stage.metrics[f'niah.{mode}.{k}x.accuracy']:.2f} / {stage.metrics[f'loss.{mode}.{k}x']:.3f}"
            for k in config.multiples
        ]
        lines.append(f"| {mode} | " + " | ".join(shown) + " |")
    (stage.out / "summary.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
