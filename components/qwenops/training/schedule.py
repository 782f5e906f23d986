"""Learning-rate curves as functions of the step."""

import math

from qwenops.training.config import TrainingConfig


def learning_rate(config: TrainingConfig, step: int) -> float:
    """Rate of step `step` (0-based): linear warm-up, then the configured shape.

    The last step (`config.steps - 1`) of a decaying shape has exactly `final_learning_rate`.
    """
    peak, floor = config.learning_rate, config.final_learning_rate
    if step < config.warmup_steps:
        return peak * (step + 1) / config.warmup_steps
    if config.schedule == "constant":
        return peak
    last = config.steps - 1
    start = config.warmup_steps
    if config.schedule == "wsd":
        start = max(start, round(config.steps * (1 - config.decay_share)))
        if step < start:
            return peak
    share = min((step - start) / max(last - start, 1), 1.0) if last > start else 1.0
    if config.schedule == "cosine":
        share = (1 - math.cos(math.pi * share)) / 2
    return peak + (floor - peak) * share
