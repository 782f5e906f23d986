"""How long the documents are that the tokens of a phase come from: what changes when long documents are added."""

from collections.abc import Mapping

import numpy as np

from qwenops.contracts.tokens import TokenShards

_SHORTEST_POWER, _LONGEST_POWER = 6, 17


def length_histogram(shards: TokenShards, least_tokens: int = 0) -> dict[str, float]:
    """Share of training tokens by their document's length, in powers of two, under the mixture's weights.

    Args:
        shards: The tokens.
        least_tokens: Shorter documents count as left out, and domains without longer ones too, as `packed` does it.

    Returns:
        "from 64", "from 128", ... "from 131072" to a share; "from 0" holds what is shorter. They sum to 1; empty where
        no document is long enough.
    """
    edges = [0, *(1 << power for power in range(_SHORTEST_POWER, _LONGEST_POWER + 1))]
    shares = np.zeros(len(edges))
    for domain, lengths in shards.lengths("train").items():
        taken = lengths[lengths >= least_tokens]
        if taken.size:
            tokens = np.histogram(taken, [*edges, np.inf], weights=taken)[0]
            shares += shards.weights.get(domain, 0.0) * tokens / tokens.sum()
    if not shares.sum():
        return {}
    return {f"from {edge}": float(share) for edge, share in zip(edges, shares / shares.sum(), strict=True)}


def long_share(shards: TokenShards, least_tokens: int) -> float:
    """Share of training tokens whose document has at least `least_tokens`, under the mixture's weights."""
    by_domain = shards.lengths("train")
    return sum(
        weight * int(by_domain[domain][by_domain[domain] >= least_tokens].sum()) / max(int(by_domain[domain].sum()), 1)
        for domain, weight in shards.weights.items()
        if weight
    )


def mix_histograms(usual: Mapping[str, float], long: Mapping[str, float], share_of_long: float) -> dict[str, float]:
    """The histogram of rows of which `share_of_long` hold long documents alone."""
    return {name: (1 - share_of_long) * share + share_of_long * long.get(name, 0.0) for name, share in usual.items()}
