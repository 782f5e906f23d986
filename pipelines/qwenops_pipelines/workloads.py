"""The training loops of a recipe as numbers, without torch: model, rows, steps and passes of each."""

from collections.abc import Iterator
from dataclasses import dataclass

from qwenops.model.sizes import Size
from qwenops.recipe.schema import Recipe
from qwenops.training.config import TrainingConfig
from qwenops.training.footprint import flops_per_token


@dataclass(frozen=True)
class Workload:
    """One training loop.

    Attributes:
        stage: DAG node, with a part after a dot where the node trains more than once.
        size: Model that is trained.
        config: Its loop.
        length: Tokens of a row (the longest, where rows differ).
        rows: Rows of one step over all workers.
        steps: Optimiser steps; 0 where they follow from the data.
        forward_passes: Further forward passes per trained token (a reference model, sampling).
        sharded: Whether weights are divided over the workers; otherwise every worker holds them whole.
        note: What the numbers leave open.
    """

    stage: str
    size: Size
    config: TrainingConfig
    length: int
    rows: int
    steps: int
    forward_passes: int = 0
    sharded: bool = False
    note: str = ""

    @property
    def tokens(self) -> int:
        """Tokens of all steps, full rows assumed."""
        return self.steps * self.rows * self.length

    @property
    def flops(self) -> int:
        """FLOPs of all steps; a forward pass is a third of a training pass."""
        return self.tokens * flops_per_token(self.size, self.length) * (3 + self.forward_passes) // 3


def workloads(recipe: Recipe) -> Iterator[Workload]:
    """Every training loop of `recipe`, in the order of the DAG."""
    yield from _mixture(recipe)
    size = recipe.pretrain.size
    for node in ("pretrain", "extend"):
        config = getattr(recipe, node)
        for phase in config.phases:
            rows = max(config.training.batch_tokens // phase.length, 1)
            yield Workload(node, size, config.training, phase.length, rows, phase.steps, sharded=True)
    yield from _upcycle(recipe)
    for node in ("sft_seed", "sft"):
        yield from _fine_tuning(recipe, node)
    yield from _preferences(recipe)


def _mixture(recipe: Recipe) -> Iterator[Workload]:
    config = recipe.mixture
    proxy = recipe.pretrain.size.model_copy(
        update={
            "hidden_size": config.hidden_size,
            "num_layers": config.num_layers,
            "num_query_heads": config.num_heads,
            "num_kv_heads": config.num_heads,
            "intermediate_size": config.hidden_size * 8 // 3,
            "vocab_rows": recipe.tokenizer.vocabulary,
            "tied_embeddings": True,
            "experts": None,
        }
    )
    length = config.context_length_tokens
    rows = max(config.training.batch_tokens // length, 1)
    steps = config.proxies * config.training.steps
    yield Workload("mixture", proxy, config.training, length, rows, steps, note=f"{config.proxies} small models")


def _upcycle(recipe: Recipe) -> Iterator[Workload]:
    config, dense = recipe.upcycle, recipe.pretrain.size.model_copy(update={"experts": None})
    rows = max(config.training.batch_tokens // config.length, 1)
    moe = dense.model_copy(update={"experts": config.experts})
    sizes = {"upcycle.moe": moe} | ({} if config.control == "none" else {"upcycle.control": dense})
    for name, size in sizes.items():
        yield Workload(name, size, config.training, config.length, rows, config.training.steps, sharded=True)


def _fine_tuning(recipe: Recipe, node: str) -> Iterator[Workload]:
    config = getattr(recipe, node)
    length = config.max_length_tokens
    rows = max(config.training.batch_tokens // length, 1)
    steps = config.training.steps if config.budget == "steps" else 0
    note = "" if steps else f"{config.epochs} epochs of the demonstrations, whose number the data decides"
    names = [node] if config.control == "none" else [node, f"{node}.control"]
    for name in names:
        yield Workload(name, recipe.pretrain.size, config.training, length, rows, steps, note=note)


def _preferences(recipe: Recipe) -> Iterator[Workload]:
    size, reward, dpo, online = recipe.pretrain.size, recipe.reward, recipe.dpo, recipe.online
    full = "pairs counted at their longest"
    phases = {"reward.pretraining": reward.pretraining_pairs} if reward.pretraining == "run" else {}
    for name, pairs in (phases | {"reward": reward.pairs}).items():
        steps = max(pairs // reward.pairs_per_step, 1)
        rows = 2 * reward.pairs_per_step
        yield Workload(name, size, _in_passes(reward.training), reward.max_length_tokens, rows, steps, note=full)
    steps = dpo.training.steps if dpo.budget == "steps" else 0
    note = full if steps else f"{dpo.epochs} epochs of the pairs, whose number the data decides"
    rows = 2 * dpo.pairs_per_step
    yield Workload("dpo", size, _in_passes(dpo.training), dpo.max_length_tokens, rows, steps, 1, note=note)
    pairs = online.episodes * online.prompts_per_episode
    steps = max(pairs // online.pairs_per_step, 1)
    # Reference pass, and sampling counted as one forward pass of every sample.
    passes = 1 + online.samples // 2
    rows = 2 * online.pairs_per_step
    loop = _in_passes(online.training)
    yield Workload("online", size, loop, online.max_length_tokens, rows, steps, passes, note=full)


def _in_passes(training: TrainingConfig) -> TrainingConfig:
    """The loop with the bound on one forward pass that pairs always have."""
    return training.model_copy(update={"micro_batch_tokens": training.pair_tokens})
