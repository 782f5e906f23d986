"""The search itself, without models: draw mixtures, fit losses, simulate, average the best.

Everything here is arrays, so that a problem with a known optimum can test it.

Dimensions: M mixtures, K buckets.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from lightgbm import LGBMRegressor
from numpy.typing import NDArray
from scipy.stats import spearmanr
from sklearn.linear_model import RidgeCV
from sklearn.model_selection import KFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

Floats = NDArray[np.float64]

_FOLDS = 5
# Losses fall with the logarithm of a share; the floor keeps the logarithm of an absent bucket finite.
_FLOOR = 0.01
# Keeps a division defined where every share is zero.
_TINY = 1e-12
_PENALTIES = (1e-3, 1e-2, 1e-1, 1.0, 10.0)


@dataclass(frozen=True)
class MixtureSearchResult:
    """What a search found.

    Attributes:
        weights: float [K], the chosen mixture.
        regression: Which regression predicted the held-out proxies better.
        spearman: Its rank correlation on proxies it was not fitted on; 0 when there are too few to tell.
        predicted: Its prediction for the chosen mixture.
    """

    weights: Floats
    regression: str
    spearman: float
    predicted: float


@dataclass(frozen=True)
class SearchSpace:
    """The mixtures that are looked at.

    Attributes:
        prior: float [K], share of each bucket's tokens.
        caps: float [K], largest share of each bucket.
        low: Least concentration.
        high: Largest concentration.
        prior_share: Part of every mixture that is the prior, 0 to 1.
    """

    prior: Floats
    caps: Floats
    low: float
    high: float
    prior_share: float = 0.0

    def draw(self, count: int, rng: np.random.Generator) -> Floats:
        """Draw mixtures: float [count, K], rows sum to 1 and respect the caps.

        A Dirichlet draw's concentration is lambda * K * prior, lambda log-uniform in [low, high]: small values give
        mixtures of few buckets, large ones stay near the prior.
        """
        strengths = np.exp(rng.uniform(np.log(self.low), np.log(self.high), size=count))
        gammas = rng.standard_gamma(strengths[:, None] * len(self.prior) * self.prior[None, :]) + _TINY
        drawn = gammas / gammas.sum(axis=1, keepdims=True)
        return cap_weights(self.prior_share * self.prior + (1 - self.prior_share) * drawn, self.caps)


def cap_weights(weights: Floats, caps: Floats) -> Floats:
    """Lower each share to its cap and hand the rest to the others in proportion; float [M, K].

    When the caps leave no room (they sum to less than 1) the shares are proportional to the caps.
    """
    if caps.sum() <= 1:
        return np.tile(caps / caps.sum(), (len(weights), 1))
    weights = weights.copy()
    for _ in range(len(caps)):  # each round fills at least one bucket
        weights = np.minimum(weights, caps)
        free = np.where(weights < caps, weights + _TINY, 0.0)
        rest = 1 - weights.sum(axis=1, keepdims=True)
        weights = weights + rest * free / np.maximum(free.sum(axis=1, keepdims=True), _TINY)
    weights = np.minimum(weights, caps)
    return weights / weights.sum(axis=1, keepdims=True)


def search_mixture(
    mixtures: Floats, losses: Floats, space: SearchSpace, *, simulated: int, averaged: int, rng: np.random.Generator
) -> MixtureSearchResult:
    """Fit losses by mixture, simulate many mixtures and average the best predicted ones.

    Args:
        mixtures: float [M, K], what the proxies were trained on.
        losses: float [M], what they reached; lower is better.
        space: Where the trained mixtures were drawn and the simulated ones are.
        simulated: Mixtures to simulate.
        averaged: How many of the best to average.
        rng: Source of the draws.
    """
    scores = {name: _held_out(make, mixtures, losses) for name, make in _REGRESSIONS.items()}
    name = max(scores, key=lambda key: scores[key])
    model = _REGRESSIONS[name]()
    model.fit(mixtures, losses)
    candidates = space.draw(simulated, rng)
    predicted = model.predict(candidates)
    weights = candidates[np.argsort(predicted, kind="stable")[:averaged]].mean(axis=0)
    weights = weights / weights.sum()
    return MixtureSearchResult(weights, name, scores[name], float(model.predict(weights[None, :])[0]))


def _held_out(make: Callable[[], Any], mixtures: Floats, losses: Floats) -> float:
    """Rank correlation of predictions for proxies in folds that were left out."""
    if len(losses) < 2 * _FOLDS:
        return 0.0
    folds = KFold(_FOLDS, shuffle=True, random_state=0)
    found: Any = spearmanr(cross_val_predict(make(), mixtures, losses, cv=folds), losses)
    return float(np.nan_to_num(found.statistic))


def _features(mixtures: Floats) -> Floats:
    return np.concatenate([mixtures, np.log(mixtures + _FLOOR)], axis=1)


def _ridge() -> Any:
    return make_pipeline(FunctionTransformer(_features), StandardScaler(), RidgeCV(_PENALTIES))


def _boosted() -> Any:
    return LGBMRegressor(
        n_estimators=200,
        learning_rate=0.05,
        num_leaves=7,
        min_child_samples=4,
        n_jobs=1,
        random_state=0,
        verbosity=-1,
        deterministic=True,
        force_col_wise=True,
    )


_REGRESSIONS = {"ridge": _ridge, "lightgbm": _boosted}
