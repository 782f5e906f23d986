"""Run the mixture search: sample, train proxies, regress, simulate, verify, choose."""

import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from transformers import AutoTokenizer

from qwenops.data.mixture.config import MixtureConfig
from qwenops.data.mixture.proxy import proxy_losses
from qwenops.data.mixture.sample import Buckets, write_sample
from qwenops.data.mixture.search import Outcome, Space, capped, search
from qwenops.platform.progress import Progress
from qwenops.platform.ray_tasks import run_tasks
from qwenops.platform.stage import Stage

Proxy = dict[str, Any]


def run(config: MixtureConfig, *, documents: Path, tokenizer: Path, stage: Stage) -> None:
    """Write `mixture.json` (weights, prior, tokens and epochs by bucket), `proxies.json` and `summary.md`."""
    encoder = AutoTokenizer.from_pretrained(tokenizer)
    shards = stage.scratch / "sample"
    buckets = write_sample(
        documents,
        encoder,
        shards,
        sample_bytes=config.sample_bytes,
        measured_share=config.measured_share,
        seed=stage.seed,
    )
    prior = np.array([buckets.prior[name] for name in buckets.names])
    caps = np.array([buckets.tokens[name] for name in buckets.names]) * config.max_epochs / config.planned_tokens
    if caps.sum() < 1:
        stage.warn(f"training repeats the text {config.max_epochs / caps.sum():.1f} times whatever the mixture")
    if len(buckets.names) == 1 or not config.proxies or caps.sum() <= 1:
        stage.warn("the mixture is not searched: there is one bucket, no proxy, or no room below the epoch cap")
        _publish(stage, buckets, capped(prior[None, :], caps)[0], None, [], config)
        return
    with stage.progress(config.proxies + 2, "proxies") as progress:
        _search_and_publish(config, stage, buckets, prior, caps, _Trainer(config, stage, shards, buckets, progress))


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
    space = Space(prior, caps, config.strength_low, config.strength_high, config.prior_share)
    mixtures = space.draw(config.proxies, rng)
    proxies = trainer.train({str(number): weights for number, weights in enumerate(mixtures)})
    losses = np.array([proxy["target"] for proxy in proxies])
    outcome = search(mixtures, losses, space, simulated=config.simulated, averaged=config.averaged, rng=rng)
    before = capped(prior[None, :], caps)[0]
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
    outcome: Outcome | None,
    proxies: list[Proxy],
    config: MixtureConfig,
) -> None:
    shares = dict(zip(buckets.names, (weights / weights.sum()).tolist(), strict=True))
    epochs = {name: shares[name] * config.planned_tokens / buckets.tokens[name] for name in buckets.names}
    facts = {"weights": shares, "prior": buckets.prior, "tokens": dict(buckets.tokens), "epochs": epochs}
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
