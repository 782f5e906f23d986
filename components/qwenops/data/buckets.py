"""The buckets that the mixture weighs: a document's domain, and for natural text its group of languages.

English and Chinese stand alone because the report names them as the main languages (section 3.1); the others share a
bucket, since a proxy cannot tell thirty weights apart. Code and mathematics are one bucket each, and so are multi-task
instructions, whatever domain their source declares.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

INSTRUCTIONS = "instructions"
_OWN_GROUP = ("en", "zh")
_WITHOUT_LANGUAGE = ("code", "math")


def bucket_of(domain: str, language: str) -> str:
    """Bucket of a document that is no instruction, for example "web_en", "web_other", "code"."""
    if domain in _WITHOUT_LANGUAGE:
        return domain
    return f"{domain}_{language if language in _OWN_GROUP else 'other'}"


@dataclass(frozen=True)
class Sources:
    """What a recipe says about sources by name; `mixture` is told it and `tokens` reads it from the mixture.

    Attributes:
        weights: Source to how often its training documents are taken in an epoch; a source that is not listed, once.
        instructions: Sources of multi-task instructions.
    """

    weights: Mapping[str, float] = field(default_factory=dict[str, float])
    instructions: Sequence[str] = ()

    def buckets(self, sources: Sequence[str], domains: Sequence[str], languages: Sequence[str]) -> list[str]:
        """Bucket of each document."""
        rows = zip(sources, domains, languages, strict=True)
        return [INSTRUCTIONS if name in self.instructions else bucket_of(domain, lang) for name, domain, lang in rows]

    def copies(self, ids: Sequence[str], sources: Sequence[str], splits: Sequence[str]) -> NDArray[np.int64]:
        """How often each document is taken: int64 [N].

        A fraction takes one more copy of the documents whose id hashes below it, so that the choice depends on the
        document alone. Held-out documents are taken once, or not at all where the source is dropped.
        """
        found = np.ones(len(ids), dtype=np.int64)
        for place, (name, source, split) in enumerate(zip(ids, sources, splits, strict=True)):
            weight = self.weights.get(source, 1.0)
            if weight != 1.0:
                taken = int(weight) + (_hash(name) < weight % 1)
                found[place] = taken if split == "train" else min(1, int(weight > 0))
        return found


def _hash(identifier: str) -> float:
    return int.from_bytes(hashlib.sha256(b"copies" + identifier.encode()).digest()[:4], "big") / 2**32
