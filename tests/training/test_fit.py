import pytest
import torch
from tests.training.counting import number_batches, number_rows, tiny_model

from qwenops.errors import StageError
from qwenops.training.batching import text_batch
from qwenops.training.config import TrainingConfig
from qwenops.training.fit import FitCallbacks, StepReport, fit
from qwenops.training.objective import language_modelling, mean_loss

CONFIG = TrainingConfig(
    steps=12,
    batch_tokens=64,
    learning_rate=1e-2,
    final_learning_rate=1e-3,
    warmup_steps=2,
    schedule="wsd",
    optimizer="muon",
    checkpoint_every_steps=4,
)


class _StopError(Exception):
    pass


def _same(first: torch.nn.Module, second: torch.nn.Module) -> bool:
    return all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_fit_on_learnable_rows_lowers_the_held_out_loss(optimizer):
    model = tiny_model()
    held_out = [text_batch(number_rows(10_000))]
    before = mean_loss(model, held_out)
    result = fit(model, language_modelling, number_batches, CONFIG.model_copy(update={"optimizer": optimizer}))
    assert mean_loss(model, held_out) < before - 0.1
    assert result.tokens == 12 * 4 * 16
    assert result.tokens_per_second > 0
    assert result.final_loss < result.first_loss


@pytest.mark.parametrize(("steps", "window"), [(1, 1), (5, 2), (12, 6), (20, 8)])
def test_first_and_final_loss_share_no_step_of_a_short_loop(steps, window):
    config = CONFIG.model_copy(update={"steps": steps})
    result = fit(tiny_model(), language_modelling, number_batches, config)
    assert result.first_loss == pytest.approx(sum(result.curve[:window]) / window)
    assert result.final_loss == pytest.approx(sum(result.curve[-window:]) / window)


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_fit_interrupted_and_run_again_ends_with_bitwise_the_same_weights(tmp_path, optimizer):
    config = CONFIG.model_copy(update={"optimizer": optimizer})
    whole, broken, resumed = tiny_model(), tiny_model(), tiny_model()
    expected = fit(whole, language_modelling, number_batches, config)

    def stop(report: StepReport) -> None:
        if report.step == 6:
            raise _StopError

    with pytest.raises(_StopError):
        fit(broken, language_modelling, number_batches, config, hooks=FitCallbacks(on_step=stop), state_dir=tmp_path)
    seen = []
    hooks = FitCallbacks(on_resume=lambda step, tokens: seen.append((step, tokens)))
    result = fit(resumed, language_modelling, number_batches, config, hooks=hooks, state_dir=tmp_path)
    assert seen == [(4, 4 * 64)]
    assert _same(whole, resumed)
    assert result.curve == expected.curve


def test_fit_whose_batches_end_early_says_at_which_step():
    def two(start):
        stream = number_batches(start)
        return (next(stream) for _ in range(2))

    with pytest.raises(StageError, match="ended at step 2"):
        fit(tiny_model(), language_modelling, two, CONFIG)


def test_micro_batches_of_unequal_size_give_the_gradient_of_the_whole():
    rows = number_rows(1, rows=6)
    config = CONFIG.model_copy(update={"steps": 1, "precision": "fp32", "warmup_steps": 0, "optimizer": "adamw"})
    whole, pieces = tiny_model(), tiny_model()
    one = fit(whole, language_modelling, lambda _: iter([text_batch(rows)]), config)
    parts = (text_batch(rows[:1]), text_batch(rows[1:]))
    two = fit(pieces, language_modelling, lambda _: iter([parts]), config)
    assert one.tokens == two.tokens
    assert one.final_loss == pytest.approx(two.final_loss, rel=1e-6)
    for a, b in zip(whole.parameters(), pieces.parameters(), strict=True):
        assert torch.allclose(a.grad, b.grad, atol=1e-6)


def test_gradient_after_clipping_stays_within_the_norm():
    model = tiny_model()
    norms = []

    def on_step(report):
        norms.append(float(torch.nn.utils.get_total_norm([p.grad for p in model.parameters()])))

    config = CONFIG.model_copy(update={"clip_norm": 0.01})
    fit(model, language_modelling, number_batches, config, hooks=FitCallbacks(on_step=on_step))
    assert max(norms) <= 0.01 * (1 + 1e-4)
