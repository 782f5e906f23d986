"""A recipe's slices lie in the store, and what travels between steps is a reference of a few hundred bytes.

Kubeflow, and its local runner, hand a parameter to a step as an argument of a process, which Linux holds to 128 KiB; a
recipe of many sources is larger. A reference names its slice by digest, so equal slices have equal references, and
Kubeflow's cache sees the difference between slices as if it had them.
"""

import hashlib
from collections.abc import Mapping

from pydantic import Field

from qwenops.errors import ContractError
from qwenops.platform.context import RunContext
from qwenops.platform.identity.sources import config_class
from qwenops.platform.storage import artifacts
from qwenops.recipe.codec import canonical, decode
from qwenops.recipe.config import Config
from qwenops.recipe.slice import Slice

_FOLDER = ".slices"


class Reference(Config):
    """Which slice a step takes from the store.

    `cache_key` makes Kubeflow's cache see what a slice does not say (the code, the store); no fingerprint holds it.
    """

    node: str
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    cache_key: str = ""


def write_slices(
    slices: Mapping[str, Slice[Config]], context: RunContext, cache_keys: Mapping[str, str]
) -> dict[str, str]:
    """Put slices into the store; returns the canonical text of a reference for each.

    Args:
        slices: Node name to its slice.
        context: Names the store.
        cache_keys: Node name to what its reference says to Kubeflow's cache; none for a node that is left out.
    """
    references: dict[str, str] = {}
    for node, envelope in slices.items():
        text = canonical(envelope)
        digest = hashlib.sha256(text.encode()).hexdigest()
        artifacts.write_text(_place(context, digest), text)
        references[node] = canonical(Reference(node=node, sha256=digest, cache_key=cache_keys.get(node, "")))
    return references


def read_slice(stage: str, text: str, context: RunContext) -> Slice[Config]:
    """The slice of a stage that `text` is, or that it refers to; only here is a stage's config decoded.

    Args:
        stage: Dotted place below `qwenops`, whose config class the slice has.
        text: Canonical text of a slice or of a `Reference`.
        context: Names the store.

    Raises:
        RecipeError: the text is neither.
        ContractError: the store does not hold the slice as it was put there.
    """
    # A reference has no config; a slice's config may hold digests of its own.
    if '"config"' in text:
        return _decode(stage, text)
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
    return _decode(stage, found)


def _decode(stage: str, text: str) -> Slice[Config]:
    # Not `Slice[...]`, because type checkers read that as a type, which is known only when this runs.
    kind: type[Slice[Config]] = Slice.__class_getitem__(config_class(stage))  # type: ignore[assignment]
    return decode(kind, text, where=stage)


def _place(context: RunContext, digest: str) -> str:
    return f"{context.store}/{_FOLDER}/{digest}.json"
