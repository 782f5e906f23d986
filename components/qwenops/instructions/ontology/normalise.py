"""From raw tags to an ontology: InsTag's four steps, run until nothing changes, then people's edits.

frequency filter -> rules (case, punctuation, stem) -> semantic merge (DBSCAN) -> association merge (FP-Growth).

Choices where the method does not fit a smaller corpus or an offline machine: tags are compared by hashed character
n-grams where InsTag uses PhraseBERT (a distance that does not depend on the other tags, so that the pipeline is a
fixed point on its own output); DBSCAN runs with one point per core, which makes clusters the connected components;
two tags merge only when each implies the other, because merging a tag into what it merely implies would erase it.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import pandas as pd
import snowballstemmer
from mlxtend.frequent_patterns import fpgrowth
from sklearn.cluster import DBSCAN
from sklearn.feature_extraction.text import HashingVectorizer

from qwenops.errors import RecipeError
from qwenops.instructions.ontology.config import Edit, OntologyConfig

Rows = Sequence[tuple[str, ...]]

_SPECIAL = re.compile(r"[\W_]+")
_MAX_PASSES = 10


@dataclass(frozen=True)
class Ontology:
    """The tags that were kept, and what became of the raw ones.

    Attributes:
        counts: Tag to the number of rows that carry it.
        members: Tag to the raw tags it stands for, sorted.
        rows: Tags of each row, sorted.
        steps: Number of different tags after each step of the first pass, and at the end.
    """

    counts: dict[str, int]
    members: dict[str, tuple[str, ...]]
    rows: list[tuple[str, ...]]
    steps: dict[str, int] = field(default_factory=dict[str, int])


def build_ontology(raw: Rows, config: OntologyConfig) -> Ontology:
    """Normalise raw tags; the result, normalised again, is itself."""
    steps = {"raw": len(_count(raw))}
    place = {tag: tag for tag in _count(raw)}
    rows = [tuple(sorted(set(tags))) for tags in raw]
    stages: tuple[tuple[str, Callable[[Rows], dict[str, str]]], ...] = (
        ("frequent", lambda now: {tag: tag for tag, n in _count(now).items() if n >= config.min_frequency}),
        ("rules", merge_by_rules),
        ("semantic", lambda now: merge_by_meaning(_count(now), config.semantic_distance)),
        (
            "association",
            partial(merge_by_association, support=config.association_support, confidence=config.association_confidence),
        ),
    )
    for _ in range(_MAX_PASSES):
        before = rows
        for name, decide in stages:
            rows, place = _apply(decide(rows), rows, place)
            steps.setdefault(name, len(_count(rows)))
        if rows == before:
            break
    for edit in config.edits:
        rows, place = _apply(_decide_edit(edit, _count(rows)), rows, place)
    members: dict[str, list[str]] = defaultdict(list)
    for tag, now in place.items():
        members[now].append(tag)
    counts = dict(sorted(_count(rows).items(), key=lambda item: (-item[1], item[0])))
    steps["final"] = len(counts)
    return Ontology(counts, {tag: tuple(sorted(members[tag])) for tag in counts}, rows, steps)


def merge_by_rules(rows: Rows) -> dict[str, str]:
    """Merge tags equal after lower case, special characters to spaces and English stemming; the commonest names all."""
    stem = snowballstemmer.stemmer("english").stemWords
    counts = _count(rows)
    clean = {tag: " ".join(_SPECIAL.sub(" ", tag.lower()).split()) for tag in counts}
    return _name_groups(counts, {tag: " ".join(stem(text.split())) for tag, text in clean.items() if text}, clean)


def merge_by_meaning(counts: Mapping[str, int], distance: float) -> dict[str, str]:
    """Merge tags whose hashed character n-grams lie within a cosine distance, through DBSCAN."""
    if not counts:
        return {}
    tags = sorted(counts)
    vectors = HashingVectorizer(analyzer="char_wb", ngram_range=(2, 4), n_features=2**16, alternate_sign=False)
    labels = DBSCAN(eps=max(distance, 1e-9), min_samples=1, metric="cosine").fit_predict(vectors.transform(tags))
    return _name_groups(counts, {tag: str(label) for tag, label in zip(tags, labels, strict=True)})


def merge_by_association(rows: Rows, support: int, confidence: float) -> dict[str, str]:
    """Merge two tags when each implies the other with the given confidence in at least `support` rows."""
    counts = _count(rows)
    frequent = sorted(tag for tag, n in counts.items() if n >= support)
    group = {tag: tag for tag in counts}
    if len(frequent) < 2:
        return group
    column = {tag: i for i, tag in enumerate(frequent)}
    table = np.zeros((len(rows), len(frequent)), dtype=bool)
    for i, tags in enumerate(rows):
        table[i, [column[tag] for tag in tags if tag in column]] = True
    frame = pd.DataFrame(table, columns=frequent)
    found = fpgrowth(frame, min_support=support / len(rows), use_colnames=True, max_len=2)
    for share, items in zip(found["support"], found["itemsets"], strict=True):
        if len(items) == 2:
            left, right = sorted(items)
            if share * len(rows) >= confidence * max(counts[left], counts[right]) - 1e-6:
                old, new = group[right], group[left]
                group = {tag: new if place == old else place for tag, place in group.items()}
    return _name_groups(counts, group)


def _name_groups(
    counts: Mapping[str, int], key: Mapping[str, str], clean: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Tag to the name of its group: the member seen most often, the first of the alphabet on a tie."""
    groups: dict[str, list[str]] = defaultdict(list)
    for tag in sorted(key):
        groups[key[tag]].append(tag)
    named: dict[str, str] = {}
    for members in groups.values():
        best = max(members, key=lambda tag: counts[tag])
        named |= dict.fromkeys(members, clean[best] if clean else best)
    return named


def _decide_edit(edit: Edit, counts: Mapping[str, int]) -> dict[str, str]:
    if edit.tag not in counts or (edit.action == "merge" and edit.into not in counts):
        raise RecipeError(
            f"an ontology edit names a tag that does not exist: {edit.tag} {edit.into}",
            expected="tags of ontology.json",
            found=edit.tag,
            action="read the table again; earlier edits may have renamed the tag",
        )
    if edit.action != "drop" and not edit.into:
        raise RecipeError(f"ontology edit of {edit.tag} has no target", expected="into", found="empty")
    kept = {tag: tag for tag in counts}
    if edit.action == "drop":
        del kept[edit.tag]
    else:
        kept[edit.tag] = edit.into
    return kept


def _apply(
    decision: Mapping[str, str], rows: Rows, place: Mapping[str, str]
) -> tuple[list[tuple[str, ...]], dict[str, str]]:
    moved = {raw: decision[now] for raw, now in place.items() if now in decision}
    return [tuple(sorted({decision[tag] for tag in tags if tag in decision})) for tags in rows], moved


def _count(rows: Iterable[tuple[str, ...]]) -> Counter[str]:
    return Counter(tag for tags in rows for tag in set(tags))
