"""Real (unpadded) tokens per second of `fit` against transformers' Trainer and a plain loop, on the same documents.

All sides train the same weights on the same documents; a token counts when it is a token of a document, padding never.
Every side runs in a process of its own, in the environment its users have: the Trainer in this one, `fit` in the one
that `qwenops run` gives a stage, whose allocator keeps freed blocks; one more side gives the Trainer that environment.
Run with `make bench-train`. Prints both sides, the ratio and the conditions, and ends with a table for RESULTS.md.
Seconds are processor seconds (`meters.cpu_seconds` says why), so compare sides at one thread. `fit` computes in bf16
and the Trainer is measured in bf16 only where the processor has it: emulated, it is ten times slower.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
import transformers
from tests.bench.meters import conditions
from torch.utils.data import Dataset
from transformers import AutoModelForCausalLM, PreTrainedModel, Trainer, TrainerCallback, TrainingArguments

from qwenops.model.architecture import model_config
from qwenops.model.sizes import Size
from qwenops.training.batching import Example, packed_epochs
from qwenops.training.config import TrainingConfig
from qwenops.training.fit import FitCallbacks, compile_layers, fit
from qwenops.training.objective import language_modelling
from qwenops.training.precision import autocast, compute_dtype
from qwenops_pipelines.services import ALLOCATOR

TINY = Size(
    hidden_size=128,
    num_layers=2,
    num_query_heads=4,
    num_kv_heads=2,
    intermediate_size=352,
    vocab_rows=2048,
    tied_embeddings=True,
)
# The dimensions of SmolLM2-135M, which is Qwen2 with zero biases.
SMALL = Size(
    hidden_size=576,
    num_layers=30,
    num_query_heads=9,
    num_kv_heads=3,
    intermediate_size=1536,
    vocab_rows=49_152,
    tied_embeddings=True,
)
LONGEST, PAD = 512, 0
# The first steps make the optimiser's state and fill the allocator.
WARM = 2
OURS = "fit, packed, by document"
_RESULT = "tokens/s:"


@dataclass(frozen=True)
class Shape:
    """One model with the work of one step: `rows` packed rows of `length`, or as many padded documents."""

    size: Size
    length: int
    rows: int
    steps: int


SHAPES = {
    "tiny": Shape(TINY, 512, 8, 14),
    "135m": Shape(SMALL, 512, 1, 6),
    "135m-2k": Shape(SMALL, 2048, 1, 4),
}


class Documents(Dataset):
    """Documents as the Trainer's data set wants them."""

    def __init__(self, documents: Sequence[Example]) -> None:
        self._documents = documents

    def __len__(self) -> int:
        return len(self._documents)

    def __getitem__(self, index: int) -> Example:
        return self._documents[index]


class PackedRows(Dataset):
    """The same documents, packed once: what a user of the Trainer can do about padding."""

    def __init__(self, batches: Sequence[dict]) -> None:
        self._rows = [
            {"input_ids": batch["input_ids"][i], "labels": batch["labels"][i], "position_ids": batch["position_ids"][i]}
            for batch in batches
            for i in range(len(batch["input_ids"]))
        ]

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> dict:
        return self._rows[index]


def documents(size: Size, count: int) -> list[Example]:
    """Documents with the skewed lengths of web text: a log-normal around 90 tokens, cut at 512."""
    draw = np.random.default_rng(0)
    lengths = np.clip(draw.lognormal(4.5, 0.9, count).astype(int), 8, LONGEST)
    return [Example(draw.integers(1, size.vocab_rows, length).tolist(), [True] * int(length)) for length in lengths]


def fresh(size: Size) -> PreTrainedModel:
    """The same weights for every side."""
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(model_config(size), attn_implementation="sdpa", dtype=torch.float32)


class StepClock(TrainerCallback):
    """Processor seconds of each of the Trainer's steps."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self._began = 0.0

    def on_step_begin(self, *args: object, **kwargs: object) -> None:
        self._began = time.process_time()

    def on_step_end(self, *args: object, **kwargs: object) -> None:
        self.seconds.append(time.process_time() - self._began)


def pad(batch: Sequence[Example]) -> dict[str, torch.Tensor]:
    """The Trainer's usual collator: every document padded to the longest of its batch."""
    longest = max(len(example.tokens) for example in batch)
    ids = torch.full((len(batch), longest), PAD)
    labels, mask = torch.full_like(ids, -100), torch.zeros_like(ids)
    for row, example in enumerate(batch):
        size = len(example.tokens)
        ids[row, :size] = labels[row, :size] = torch.tensor(example.tokens)
        mask[row, :size] = 1
    return {"input_ids": ids, "labels": labels, "attention_mask": mask}


def stack(rows: Sequence[dict]) -> dict[str, torch.Tensor]:
    """Packed rows as one batch; the labels are shifted already, which the Trainer's model undoes."""
    batch = {key: torch.stack([row[key] for row in rows]) for key in rows[0]}
    # transformers shifts labels itself.
    batch["labels"] = torch.cat([torch.full_like(batch["labels"][:, :1], -100), batch["labels"][:, :-1]], dim=1)
    return batch


def trainer_rate(shape: Shape, data: Dataset, collate: Callable, rows: int, bf16: bool, tokens: Sequence[int]) -> float:
    """Real tokens per second of transformers' Trainer after the first `WARM` steps."""
    clock = StepClock()
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder,
            per_device_train_batch_size=rows,
            max_steps=shape.steps,
            bf16=bf16,
            use_cpu=not torch.cuda.is_available(),
            report_to=[],
            save_strategy="no",
            logging_strategy="no",
            disable_tqdm=True,
            remove_unused_columns=False,
            train_sampling_strategy="sequential",
            seed=0,
        )
        trainer = Trainer(
            model=fresh(shape.size), args=arguments, train_dataset=data, data_collator=collate, callbacks=[clock]
        )
        trainer.train()
    return sum(tokens[WARM : shape.steps]) / sum(clock.seconds[WARM:])


def fit_rate(shape: Shape, packed: Callable, **changes: object) -> float:
    """Real tokens per second of `fit` after the first `WARM` steps."""
    marks: list[tuple[float, int]] = []
    config = TrainingConfig(steps=shape.steps, batch_tokens=shape.rows * shape.length, warmup_steps=0)
    hooks = FitCallbacks(on_step=lambda report: marks.append((time.process_time(), report.tokens)))
    fit(fresh(shape.size), language_modelling, packed, config.model_copy(update=changes), hooks=hooks)
    return sum(tokens for _, tokens in marks[WARM:]) / (marks[-1][0] - marks[WARM - 1][0])


def plain_rate(shape: Shape, batches: Sequence[dict], compiled: bool) -> float:
    """Real tokens per second of a loop written as torchtitan's recipes are, after the first `WARM` steps.

    Rows are a stream whose documents see each other, so attention is causal and needs no mask; whole logits; layers
    compiled one by one; fused AdamW; clipped gradients; bf16 where the processor has it.
    """
    model = fresh(shape.size)
    if compiled:
        compile_layers(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-4, betas=(0.9, 0.95), weight_decay=0.1, fused=True)
    model.train()
    for step, batch in enumerate(batches):
        if step == WARM:
            began = time.process_time()
        with autocast(model, "bf16"):
            logits = model(input_ids=batch["input_ids"], use_cache=False).logits
            loss = F.cross_entropy(logits.float().flatten(0, 1), batch["labels"].flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    return sum(batch["num_tokens"] for batch in batches[WARM:]) / (time.process_time() - began)


def sides(shape: Shape) -> dict[str, Callable[[], float]]:
    """What can be measured, by name; nothing is trained before a side is called."""
    texts = documents(shape.size, 4000 if shape.size is TINY else 600)
    mean = sum(len(text.tokens) for text in texts) / len(texts)
    # As many documents in a padded batch as a packed batch holds on average.
    padded_rows = max(round(shape.rows * shape.length / mean), 1)

    def packed(start: int):
        return packed_epochs(
            texts, length=shape.length, rows_per_batch=shape.rows, pad_id=PAD, seed=0, start_step=start
        )

    stream = packed(0)
    batches = [next(stream) for _ in range(shape.steps)]
    per_batch = [batch["num_tokens"] for batch in batches]
    firsts = range(0, padded_rows * shape.steps, padded_rows)
    per_padded = [sum(len(text.tokens) for text in texts[first : first + padded_rows]) for first in firsts]
    rows = PackedRows(batches)
    found: dict[str, Callable[[], float]] = {
        "Trainer, its defaults (padded, fp32)": lambda: trainer_rate(
            shape, Documents(texts), pad, padded_rows, False, per_padded
        ),
        "Trainer, packed, fp32": lambda: trainer_rate(shape, rows, stack, shape.rows, False, per_batch),
    }
    if compute_dtype(torch.device("cpu"), "bf16") == torch.bfloat16:
        found["Trainer, packed, bf16"] = lambda: trainer_rate(shape, rows, stack, shape.rows, True, per_batch)
        found["Trainer, packed, bf16, our allocator"] = found["Trainer, packed, bf16"]
    return found | {
        "plain loop, packed": lambda: plain_rate(shape, batches, compiled=False),
        "plain loop, packed, compiled": lambda: plain_rate(shape, batches, compiled=True),
        "fit, packed, masked": lambda: fit_rate(shape, packed),
        OURS: lambda: fit_rate(shape, packed, attention="by_document"),
        f"{OURS}, compiled": lambda: fit_rate(shape, packed, attention="by_document", compile="layers"),
    }


def in_own_process(name: str, side: str, threads: int) -> float:
    """Real tokens per second of one side, in the environment that its users have."""
    ours = side.startswith("fit") or side.endswith("our allocator")
    command = [sys.executable, __file__, "--shapes", name, "--only", side, "--threads", str(threads)]
    environment = os.environ | ALLOCATOR if ours else {k: v for k, v in os.environ.items() if k not in ALLOCATOR}
    shown = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True).stdout
    return float(shown.rsplit(_RESULT, 1)[1])


def measure(name: str, chosen: Sequence[str], repeats: int, threads: int) -> list[tuple[str, float, float]]:
    """(side, best rate, relative spread over the repeats), the sides taken in turns so that noise hits all alike."""
    rates: dict[str, list[float]] = {side: [] for side in chosen}
    for _ in range(repeats):
        for side in chosen:
            rates[side].append(in_own_process(name, side, threads))
            print(f"  {name:<7} {side:<40} {rates[side][-1]:>9,.0f} tokens/s", flush=True)
    return [(side, max(found), (max(found) - min(found)) / max(found)) for side, found in rates.items()]


def main() -> None:
    """Measure the chosen shapes and print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=list(SHAPES))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1, help="torch threads of both sides")
    parser.add_argument("--sides", nargs="+", default=[], help="sides to compare with ours; all where none is named")
    parser.add_argument("--only", default="", help="measure this side of one shape here, in this process")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    transformers.logging.set_verbosity_error()
    if options.only:
        print(_RESULT, sides(SHAPES[options.shapes[0]])[options.only]())
        return
    print(f"{conditions()}, transformers {transformers.__version__}")
    print("\n| shape | side | real tokens/s (best) | spread | by document is faster by |")
    print("|---|---|---|---|---|")
    for name in options.shapes:
        known = sides(SHAPES[name])
        chosen = [side for side in known if side in options.sides or side == OURS or not options.sides]
        found = measure(name, chosen, options.repeats, options.threads)
        ours = max(rate for side, rate, _ in found if side == OURS)
        for side, rate, spread in found:
            print(f"| {name} | {side} | {rate:,.0f} | {spread:.0%} | {ours / rate:.2f} |")


if __name__ == "__main__":
    main()
