"""Sampled documents of every source on a page for a person, and the person's decisions as weights of sources.

The page is one file that opens from a disk and saves a file; nothing is sent anywhere. It is no stage of the pipeline,
because a person takes a day: the weights go into the recipe of the next run, whose identity they are part of.
Report: section 2.1 of Qwen1 has sources sampled and reviewed by hand, and some of them up-sampled.
"""

import hashlib
import heapq
import json
from collections import Counter
from importlib.resources import files
from pathlib import Path
from typing import Any

from qwenops.contracts.document import iter_documents
from qwenops.contracts.manifest import read_manifest
from qwenops.data.mixture.config import SourceWeight
from qwenops.errors import RecipeError
from qwenops.platform.pictures.style import STYLE
from qwenops.recipe.codec import canonical, decode

_CHARACTERS = 3000
_COLUMNS = ["id", "text", "source", "domain", "url", "license", "lang", "quality"]
_VERSION = 1


def sample_sources(artifact: Path, documents: int, seed: int) -> list[dict[str, Any]]:
    """Up to `documents` of each source, chosen by a hash of seed and id: the same whatever the parts and their order.

    Returns:
        For each source, by name: its name, licences, number of documents and the sampled rows.
    """
    chosen: dict[str, list[tuple[int, str, dict[str, Any]]]] = {}
    totals: Counter[str] = Counter()
    licenses: dict[str, set[str]] = {}
    for row in iter_documents(artifact, _COLUMNS):
        source = row["source"]
        totals[source] += 1
        licenses.setdefault(source, set()).add(row["license"])
        place = int.from_bytes(hashlib.sha256(f"{seed}\0{row['id']}".encode()).digest()[:8], "big")
        heap = chosen.setdefault(source, [])
        # The largest of what is held stands first, so the smallest places stay.
        entry = (-place, row["id"], row | {"text": row["text"][:_CHARACTERS]})
        (heapq.heappush if len(heap) < documents else heapq.heappushpop)(heap, entry)
    return [
        {
            "source": source,
            "license": ", ".join(sorted(licenses[source])),
            "total": totals[source],
            "documents": [row for _, _, row in sorted(chosen[source], key=lambda entry: entry[:2], reverse=True)],
        }
        for source in sorted(chosen)
    ]


def write_page(artifact: Path, page: Path, documents: int, seed: int) -> int:
    """Write the page with samples of every source of an artifact of documents; returns how many documents it shows."""
    sources = sample_sources(artifact, documents, seed)
    plain = {"artifact": read_manifest(artifact).artifact_id, "sources": sources}
    # In a script element only "</" could end it.
    data = json.dumps(plain, ensure_ascii=False).replace("</", "<\\/").replace("<!--", "<\\u0021--")
    text = files("qwenops.data").joinpath("review.html").read_text(encoding="utf-8")
    page.write_text(text.replace("@@STYLE@@", STYLE).replace("@@DATA@@", data), encoding="utf-8")
    return sum(len(source["documents"]) for source in sources)


def source_weights(decisions: Path) -> list[SourceWeight]:
    """The weights that a saved page gives sources, those without a change left out.

    Raises:
        RecipeError: the file is not what the page saves, or a weight is out of range.
    """
    try:
        plain = json.loads(decisions.read_text(encoding="utf-8"))
        of_version = {_VERSION: plain["sources"]}[plain["version"]]
        rows = [(name, float(facts["weight"])) for name, facts in sorted(of_version.items())]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise RecipeError(
            f"{decisions} holds no decisions",
            expected="the file that the review page saves",
            found=f"{type(error).__name__}: {error}",
            action="open the page that `qwenops review RUN` wrote, and save it again",
        ) from None
    found = [decode(SourceWeight, json.dumps({"source": name, "weight": weight})) for name, weight in rows]
    return [one for one in found if one.weight != 1.0]


def override_text(weights: list[SourceWeight]) -> str:
    """The weights as the value of `--set`."""
    return "mixture.source_weights=[" + ",".join(canonical(weight) for weight in weights) + "]"
