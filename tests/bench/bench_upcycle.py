"""Held-out loss of an upcycled mixture and of its dense control at equal FLOPs, over several seeds.

    PYTHONPATH=. python tests/bench/bench_upcycle.py --checkpoint C --tokens T [--seeds 1 2 3] [--steps 60]

The folders are artifacts of a finished run (`OUT/stages` holds them). Mixture and control
read the same batches in the same order; the control goes on until it has spent the mixture's FLOPs (6 per active
parameter and token, the head and causal attention counted, router included), each with its own whole schedule.
"""

import argparse
from pathlib import Path
from statistics import mean, stdev

import torch
from tests.bench.meters import conditions
from transformers import PreTrainedModel

from qwenops.contracts.tokens import TokenShards
from qwenops.model.architecture import size_of
from qwenops.model.checkpoints import load_model
from qwenops.model.routing import watch_routers
from qwenops.model.upcycling import Upcycling, upcycle
from qwenops.pretraining.held_out import text_rows
from qwenops.pretraining.upcycle.config import UpcycleConfig
from qwenops.pretraining.upcycle.continued import balanced_language_modelling, spread_batches
from qwenops.training.config import TrainingConfig
from qwenops.training.fit import FitCallbacks, StepReport, fit
from qwenops.training.footprint import flops_per_token
from qwenops.training.objective import language_modelling, mean_loss
from qwenops.training.parallel import worker_rank
from qwenops.training.terms import Objective
from qwenops_pipelines.recipes.tiny import UPCYCLE

Curve = list[tuple[float, float]]


def curve(
    model: PreTrainedModel, objective: Objective, training: TrainingConfig, shards: TokenShards, seed: int, cost: int
) -> Curve:
    """(FLOPs spent, held-out loss) at every tenth of the steps, the start included."""
    text = text_rows(shards, UPCYCLE.length, UPCYCLE.heldout_tokens)
    marks = {round(training.steps * tenth / 10) for tenth in range(1, 11)}
    found = [(0.0, mean_loss(model, text))]
    model.train()

    def on_step(report: StepReport) -> None:
        if report.step + 1 in marks:
            found.append((float((report.step + 1) * training.batch_tokens * cost), mean_loss(model, text)))
            model.train()

    batches = spread_batches(shards, UPCYCLE.length, training, seed, worker_rank())
    fit(model, objective, batches, training, hooks=FitCallbacks(on_step=on_step), seed=seed)
    return found


def measure(options: argparse.Namespace, seed: int, config: UpcycleConfig) -> dict[str, Curve]:
    """One seed: new weights of the experts and another order of the batches."""
    shards, dense = TokenShards(options.tokens), load_model(options.checkpoint)
    how = Upcycling(config.experts, config.reinit_ratio, config.granularity, options.start, seed)
    moe = upcycle(dense, how)
    costs = {
        name: flops_per_token(size_of(dense.config).model_copy(update={"experts": experts}), config.length)
        for name, experts in (("moe", config.experts), ("dense", None))
    }
    longer = round(options.steps * costs["moe"] / costs["dense"])
    trainings = {
        name: config.training.model_copy(update={"steps": steps, "warmup_steps": max(1, steps // 15)})
        for name, steps in (("moe", options.steps), ("dense", longer))
    }
    with watch_routers(moe) as log:
        objective = balanced_language_modelling(log, config.balance_coefficient, language_modelling)
        mixture = curve(moe, objective, trainings["moe"], shards, seed, costs["moe"])
    control = curve(dense, language_modelling, trainings["dense"], shards, seed, costs["dense"])
    for name, found in (("moe", mixture), ("dense", control)):
        steps, tokens = trainings[name].steps, trainings[name].steps * config.training.batch_tokens
        print(
            f"  seed {seed} {name:<5} {costs[name] / 1e6:6.2f} MFLOP/token, {steps:4} steps, {tokens:8} tokens,"
            f" {found[-1][0] / 1e12:5.2f} TFLOP: loss {found[0][1]:.4f} -> {found[-1][1]:.4f}",
            flush=True,
        )
    return {"moe": mixture, "dense": control}


def main() -> None:
    """Measure every seed and print the difference with its standard error."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--checkpoint", type=Path, required=True, help="the dense model, pretrained or extended")
    parser.add_argument("--tokens", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--steps", type=int, default=UPCYCLE.training.steps, help="of the mixture")
    parser.add_argument("--start", default=UPCYCLE.start, help="report or function_preserving")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(conditions())
    found = [measure(options, seed, UPCYCLE) for seed in options.seeds]
    gaps = [one["moe"][-1][1] - one["dense"][-1][1] for one in found]
    error = stdev(gaps) / len(gaps) ** 0.5 if len(gaps) > 1 else float("nan")
    print(f"  mixture minus dense at equal FLOPs: {mean(gaps):+.4f} nats, standard error {error:.4f}")
    for name in ("moe", "dense"):
        points = [mean(loss for _, loss in column) for column in zip(*(one[name] for one in found), strict=True)]
        print(f"  {name:<5} mean held-out loss by tenths of the FLOPs: {' '.join(f'{loss:.3f}' for loss in points)}")


if __name__ == "__main__":
    main()
