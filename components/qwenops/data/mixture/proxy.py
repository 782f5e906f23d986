"""One proxy: a tiny Qwen2 trained on one mixture, and its loss on every bucket."""

from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from transformers import AutoModelForCausalLM

from qwenops.contracts.tokens import TokenShards
from qwenops.data.mixture.config import MixtureConfig
from qwenops.model.architecture import model_config
from qwenops.model.sizes import Size
from qwenops.training.batching import text_batch
from qwenops.training.fit import fit
from qwenops.training.objective import language_modelling, mean_loss
from qwenops.training.terms import Batch

_ROW_MULTIPLE = 128
_MEASURED_BATCH = 16


def proxy_losses(tokens: Path, weights: Mapping[str, float], *, config: MixtureConfig, seed: int) -> dict[str, float]:
    """Train a proxy on `weights` and measure it: bucket to nats per token.

    All proxies start from the same weights and see the rows of a bucket in the same order, so that the mixture is the
    only difference between them.
    """
    shards = TokenShards(tokens)
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(model_config(proxy_size(config, shards.vocabulary)), dtype=torch.float32)
    rows = max(config.training.batch_tokens // config.context_length_tokens, 1)

    def batches(step: int) -> Iterator[Batch]:
        stream = shards.packed("train", config.context_length_tokens + 1, seed, step * rows, weights)
        while True:
            yield text_batch(np.stack([row.ids for row in islice(stream, rows)]))

    fit(model, language_modelling, batches, config.training, seed=seed)
    return {bucket: mean_loss(model, _measured(shards, bucket, config)) for bucket in sorted(shards.weights)}


def proxy_size(config: MixtureConfig, vocabulary: int) -> Size:
    """Dimensions of a proxy."""
    return Size(
        hidden_size=config.hidden_size,
        num_layers=config.num_layers,
        num_query_heads=config.num_heads,
        num_kv_heads=config.num_heads,
        intermediate_size=config.hidden_size * 8 // 3,
        vocab_rows=-(-vocabulary // _ROW_MULTIPLE) * _ROW_MULTIPLE,
        tied_embeddings=True,
    )


def _measured(shards: TokenShards, bucket: str, config: MixtureConfig) -> Iterator[Batch]:
    stream = shards.packed("heldout", config.context_length_tokens + 1, 0, weights={bucket: 1.0})
    rows = [row.ids for row in islice(stream, config.measured_rows)]
    for start in range(0, len(rows), _MEASURED_BATCH):
        yield text_batch(np.stack(rows[start : start + _MEASURED_BATCH]))
