"""Run the mixture search: sample, train proxies, regress, simulate, verify, choose."""

import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from transformers import AutoTokenizer

from qwenops.data.buckets import INSTRUCTIONS, Sources
from qwenops.data.mixture.config import MixtureConfig
from qwenops.data.mixture.proxy import proxy_losses
from qwenops.data.mixture.sample import Buckets, write_sample
from qwenops.data.mixture.search import MixtureSearchResult, SearchSpace, cap_weights, search_mixture
from qwenops.errors import ContractError
from qwenops.platform.observe.progress import Progress
from qwenops.platform.ray.tasks import run_tasks
from qwenops.platform.stage.handle import Stage

Proxy = dict[str, Any]


def run(config: MixtureConfig, *, documents: Path, tokenizer: Path, stage: Stage) -> None:
    """Write `mixture.json` (weights, prior, tokens and epochs by bucket), `proxies.json` and `summary.md`.

    Raises:
        ContractError: instruction sources are named and no document is of them, or of any other.
    """
    encoder = AutoTokenizer.from_pretrained(tokenizer)
    shards = stage.scratch / "sample"
    everything = write_sample(
        documents,
        encoder,
        shards,
        sample_bytes=config.sample_bytes,
        measured_share=config.measured_share,
        seed=stage.seed,
        sources=Sources({w.source: w.weight for w in config.source_weights}, config.instruction_sources),
    )
    fixed = _instruction_share(config, everything, stage)
    buckets = everything.searched
    prior = np.array([buckets.prior[name] for name in buckets.names])
    # The document that is taken most often in an epoch may be repeated `max_epochs` times, so its bucket ends sooner.
    once = np.array([buckets.tokens[name] / buckets.copies[name] for name in buckets.names])
    caps = once * config.max_epochs / (config.planned_tokens * (1 - fixed))
    if caps.sum() < 1:
        stage.warn(f"training repeats the text {config.max_epochs / caps.sum():.1f} times whatever the mixture")
    if len(buckets.names) == 1 or not config.proxies or caps.sum() <= 1:
        stage.warn("the mixture is not searched: there is one bucket, no proxy, or no room below the epoch cap")
        _publish(stage, everything, cap_weights(prior[None, :], caps)[0], None, [], config)
        return
    with stage.progress(config.proxies + 2, "proxies") as progress:
        trainer = _Trainer(config, stage, shards, buckets, progress)
        _search_and_publish(config, stage, everything, prior, caps, trainer)


def _instruction_share(config: MixtureConfig, buckets: Buckets, stage: Stage) -> float:
    """Share of training tokens that the instructions take; 0 where no source is named for them."""
    if not config.instruction_sources:
        return 0.0
    if INSTRUCTIONS not in buckets.tokens or len(buckets.tokens) == 1:
        raise ContractError(
            "instructions cannot be mixed in",
            expected=f"training documents of {', '.join(config.instruction_sources)} and of other sources",
            found=f"buckets {', '.join(buckets.names)}",
            action="name sources of collect in mixture.instruction_sources, or set none",
        )
    epochs = (
        config.instruction_share * config.planned_tokens * buckets.copies[INSTRUCTIONS] / buckets.tokens[INSTRUCTIONS]
    )
    if epochs > config.max_epochs:
        stage.warn(
            f"instructions are repeated {epochs:.1f} times at mixture.instruction_share={config.instruction_share}"
        )
    return config.instruction_share


class _Trainer:
    """Trains proxies and remembers each in scratch, so that a killed search goes on."""

    def __init__(self, config: MixtureConfig, stage: Stage, shards: Path, buckets: Buckets, progress: Progress) -> None:
        self._stage, self._buckets, self._progress = stage, buckets, progress
        self._function = partial(proxy_losses, shards, config=config, seed=stage.seed)
        target = np.ones(len(buckets.names)) if config.target == "uniform" else np.array(list(buckets.prior.values()))
        self._target = target / target.sum()

    def train(self, mixtures: Mapping[str, np.ndarray]) -> list[Proxy]:
        """Weights, loss of every bucket and their average of one proxy for each named mixture, in order."""
        shares = {name: dict(zip(self._buckets.names, w.tolist(), strict=True)) for name, w in mixtures.items()}
        waiting = [name for name in shares if not self._path(name).exists()]
        self._progress.advance(len(shares) - len(waiting))
        for place, losses in run_tasks(self._stage.context, self._function, [shares[name] for name in waiting]):
            name = waiting[place]
            target = float(np.dot(self._target, [losses[bucket] for bucket in self._buckets.names]))
            proxy = {"name": name, "weights": shares[name], "losses": losses, "target": target}
            self._path(name).write_text(json.dumps(proxy), encoding="utf-8")
            self._progress.advance(1, f"{name}: loss {target:.3f}")
        return [json.loads(self._path(name).read_text(encoding="utf-8")) for name in shares]

    def _path(self, name: str) -> Path:
        return self._stage.scratch / f"proxy-{name}.json"


def _search_and_publish(
    config: MixtureConfig, stage: Stage, buckets: Buckets, prior: np.ndarray, caps: np.ndarray, trainer: _Trainer
) -> None:
    """Train the proxies, search, check the result against the prior with one more proxy each, publish the better."""
    rng = np.random.default_rng(stage.seed)
    space = SearchSpace(prior, caps, config.strength_low, config.strength_high, config.prior_share)
    mixtures = space.draw(config.proxies, rng)
    proxies = trainer.train({str(number): weights for number, weights in enumerate(mixtures)})
    losses = np.array([proxy["target"] for proxy in proxies])
    outcome = search_mixture(mixtures, losses, space, simulated=config.simulated, averaged=config.averaged, rng=rng)
    before = cap_weights(prior[None, :], caps)[0]
    checks = trainer.train({"prior": before, "chosen": outcome.weights})
    stage.metric("mixture.proxy_loss.best_sampled", float(losses.min()))
    for check in checks:
        stage.metric(f"mixture.proxy_loss.{check['name']}", check["target"])
    stage.metric("mixture.spearman", outcome.spearman)
    better = checks[1]["target"] <= checks[0]["target"]
    if not better:
        stage.warn("a proxy on the chosen mixture is worse than one on the prior, so the prior is kept")
    _publish(stage, buckets, outcome.weights if better else before, outcome, [*proxies, *checks], config)


def _publish(
    stage: Stage,
    buckets: Buckets,
    weights: np.ndarray,
    outcome: MixtureSearchResult | None,
    proxies: list[Proxy],
    config: MixtureConfig,
) -> None:
    rest = 1 - (config.instruction_share if config.instruction_sources else 0.0)
    shares = dict(zip(buckets.searched.names, (rest * weights / weights.sum()).tolist(), strict=True))
    if config.instruction_sources:
        shares[INSTRUCTIONS] = config.instruction_share
    epochs = {name: shares[name] * config.planned_tokens / buckets.tokens[name] for name in shares}
    facts: dict[str, Any] = {
        "weights": shares,
        "prior": buckets.prior,
        "tokens": dict(buckets.tokens),
        "epochs": epochs,
    }
    if config.source_weights or config.instruction_sources:
        facts["source_weights"] = {w.source: w.weight for w in config.source_weights}
        facts["instruction_sources"] = list(config.instruction_sources)
    if outcome:
        facts |= {"regression": outcome.regression, "spearman": outcome.spearman, "predicted_loss": outcome.predicted}
    (stage.out / "mixture.json").write_text(json.dumps(facts, indent=1), encoding="utf-8")
    (stage.out / "proxies.json").write_text(json.dumps(proxies, indent=1), encoding="utf-8")
    for name, share in shares.items():
        stage.metric(f"mixture.{name}", share)
    stage.records = len(proxies)
    lines = [
        "# Mixture",
        "",
        f"{len(proxies)} proxies trained.",
        "",
        "| bucket | tokens | prior | chosen | epochs |",
        "|---|---|---|---|---|",
        *(
            f"| {name} | {buckets.tokens[name]} | {buckets.prior[name]:.3f} | {share:.3f} | {epochs[name]:.2f} |"
            for name, share in shares.items()
        ),
    ]
    (stage.out / "summary.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
