"""A policy that is its own reference has no margin, in the arithmetic that it trains in."""

import math

import pytest
import torch
from tests.alignment.conftest import small_model

from qwenops.alignment.examples import Pair, pad_batch, pair_stream
from qwenops.alignment.objectives import add_reference_log_probs, dpo_objective, target_log_probs
from qwenops.training.batching import Example
from qwenops.training.config import TrainingConfig
from qwenops.training.fit import FitCallbacks, fit
from qwenops.training.precision import autocast


@pytest.fixture(params=["fp32", "bf16"])
def precision(request, monkeypatch):
    """Both arithmetics, bf16 emulated where the processor lacks it."""
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"bf16": True})
    return request.param


def examples(count):
    generator = torch.Generator().manual_seed(0)
    sizes = torch.randint(5, 60, (count,), generator=generator).tolist()
    rows = [torch.randint(1, 300, (size,), generator=generator).tolist() for size in sizes]
    return [Example(row, [False] * 3 + [True] * (len(row) - 3)) for row in rows]


def test_margin_is_exactly_0_and_the_loss_ln_2_before_the_first_step(precision):
    rows, model, reports = examples(24), small_model(), []
    pairs = [Pair(*sides) for sides in zip(rows[::2], rows[1::2], strict=True)]
    config = TrainingConfig(
        steps=6, learning_rate=1e-30, final_learning_rate=0, warmup_steps=0, precision=precision, micro_batch_tokens=300
    )

    def batches(start):
        return pair_stream(pairs, 5, 0, config.pair_tokens, 1, start)

    referenced = add_reference_log_probs(model, batches, config.steps, precision)
    fit(model, dpo_objective(0.1, 0.0), referenced, config, hooks=FitCallbacks(on_step=reports.append))
    assert [report.metrics["margin"] for report in reports] == [0.0] * 6
    assert [report.loss for report in reports] == pytest.approx([math.log(2)] * 6, rel=1e-6)
    # A loop that resumes finds its step's own references.
    assert torch.equal(next(referenced(4))[0]["reference"], list(referenced(0))[4][0]["reference"])


def test_log_probs_are_those_of_the_training_pass(precision):
    rows, model = examples(12), small_model()
    found = target_log_probs(model, rows, 0, precision)
    batch = pad_batch(sorted(rows, key=lambda row: len(row.tokens)), 0)
    with autocast(model, precision), torch.no_grad():
        logits = model(batch["input_ids"], batch["attention_mask"]).logits.float()
    expected = logits.log_softmax(-1).gather(2, batch["labels"].clamp(min=0)[..., None])[..., 0]
    sums = (expected * (batch["labels"] >= 0)).sum(1)
    ordered = sorted(range(12), key=lambda place: len(rows[place].tokens))
    torch.testing.assert_close(torch.stack([found[place].sum() for place in ordered]), sums, rtol=1e-5, atol=1e-4)
