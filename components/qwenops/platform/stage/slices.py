"""A recipe's slices lie in the store, and what travels between steps is a reference of a few hundred bytes.

Kubeflow, and its local runner, hand a parameter to a step as an argument of a process, which Linux holds to 128 KiB; a
recipe of many sources is larger. A reference names its slice by digest, so equal slices have equal references, and
Kubeflow's cache sees the difference between slices as if it had them.
"""

import hashlib
from collections.abc import Mapping
from typing import Any

from pydantic import Field

from qwenops.errors import ContractError
from qwenops.platform.context import RunContext
from qwenops.platform.storage import artifacts
from qwenops.recipe.codec import canonical, decode
from qwenops.recipe.config import Config

_FOLDER = ".slices"


class Slice(Config):
    """What one node is to do: its name, the run's seed and the stage's own config."""

    node: str
    seed: int
    config: dict[str, Any]


class Reference(Config):
    """Which slice a step takes from the store.

    `cache_key` makes Kubeflow's cache see what a slice does not say (the code, the store); no fingerprint holds it.
    """

    node: str
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    cache_key: str = ""


def keep(texts: Mapping[str, str], context: RunContext, cache_keys: Mapping[str, str]) -> dict[str, str]:
    """Put slices into the store; returns the canonical text of a reference for each.

    Args:
        texts: Node name to the canonical text of its slice.
        context: Names the store.
        cache_keys: Node name to what its reference says to Kubeflow's cache; none for a node that is left out.
    """
    references: dict[str, str] = {}
    for node, text in texts.items():
        digest = hashlib.sha256(text.encode()).hexdigest()
        artifacts.write_text(_place(context, digest), text)
        references[node] = canonical(Reference(node=node, sha256=digest, cache_key=cache_keys.get(node, "")))
    return references


def read(text: str, context: RunContext) -> Slice:
    """The slice that `text` is, or that it refers to.

    Raises:
        RecipeError: the text is neither.
        ContractError: the store does not hold the slice as it was put there.
    """
    # A reference has no config; a slice's config may hold digests of its own.
    if '"config"' in text:
        return decode(Slice, text)
    reference = decode(Reference, text)
    place = _place(context, reference.sha256)
    found = artifacts.read_text(place)
    if hashlib.sha256(found.encode()).hexdigest() != reference.sha256:
        raise ContractError(
            f"the slice of {reference.node} at {place} is not what the first step put there",
            expected=reference.sha256,
            found="another digest",
            action="start the run again",
        )
    return decode(Slice, found)


def _place(context: RunContext, digest: str) -> str:
    return f"{context.store}/{_FOLDER}/{digest}.json"
