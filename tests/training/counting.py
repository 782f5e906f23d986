"""A model of a few thousand parameters and batches of numbers: what the training tests share."""

import gc
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch.profiler import ProfilerActivity, profile
from transformers import Qwen2Config, Qwen2ForCausalLM

from qwenops.training.batching import text_batch
from qwenops.training.terms import Batch

VOCABULARY = 64


def tiny_model(seed: int = 0, tied: bool = True) -> Qwen2ForCausalLM:
    torch.manual_seed(seed)
    config = Qwen2Config(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        intermediate_size=48,
        vocab_size=VOCABULARY,
        max_position_embeddings=64,
        tie_word_embeddings=tied,
    )
    return Qwen2ForCausalLM(config)


def number_rows(step: int, rows: int = 4, length: int = 16) -> np.ndarray:
    """Rows that count upwards from a random start: learnable within a few steps."""
    starts = np.random.default_rng(step).integers(VOCABULARY, size=(rows, 1))
    return (starts + np.arange(length + 1)) % VOCABULARY


def number_batches(start: int) -> Iterator[Batch]:
    step = start
    while True:
        yield text_batch(number_rows(step))
        step += 1


def peak_bytes(work: Callable[[], object]) -> int:
    """Most bytes of tensors that `work` holds at once beyond what was there before, by the allocator's own events."""
    # What earlier work left in cycles must not be freed, and so subtracted, in between.
    gc.collect()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
        work()
    held = peak = 0
    for event in record.profiler.kineto_results.events():
        if event.name() == "[memory]":
            held += event.nbytes()
            peak = max(peak, held)
    return peak
