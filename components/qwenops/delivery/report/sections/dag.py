"""The picture of the DAG: one lane per area, a box per node with its time, curves for what reads what."""

from collections.abc import Mapping, Sequence
from html import escape

from qwenops.platform.pictures.charts import duration

AREAS: Mapping[str, tuple[str, ...]] = {
    "data": ("collect", "ingest", "quality", "dedup", "decontaminate", "tokenizer", "mixture", "tokens"),
    "pretraining": ("pretrain", "extend", "upcycle"),
    "instructions": ("ontology", "select", "evolve", "rank", "synthesize"),
    "alignment": ("sft_seed", "sft", "reward", "dpo", "online"),
    "evaluation": ("benchmarks", "long_context", "safety", "multilingual", "contamination"),
    "delivery": ("export", "register", "report"),
}
NODES: tuple[str, ...] = tuple(node for nodes in AREAS.values() for node in nodes)
_LEFT, _COLUMN, _BOX, _LANE, _TALL = 92, 124, 110, 74, 42
_WORDS = {"succeeded": "", "skipped": "reused", "failed": "failed", "running": "drew this page", "absent": "not run"}


def dag_picture(status: Mapping[str, str], seconds: Mapping[str, float], edges: Sequence[tuple[str, str]]) -> str:
    """Draw the DAG.

    Args:
        status: Node to "succeeded", "skipped" or "failed"; a node that is missing was not run.
        seconds: Node to seconds of its own work; the bar in a box is its share of the longest.
        edges: (producer, consumer). Edges that follow from others, and the report's own (it reads everything),
            are left out of the picture.
    """
    width, height = _LEFT + 8 * _COLUMN, len(AREAS) * _LANE + 6
    longest = max(seconds.values(), default=0) or 1
    lanes = "".join(
        f'<text class="area" x="2" y="{lane * _LANE + 32}">{escape(area)}</text>' for lane, area in enumerate(AREAS)
    )
    curves = "".join(
        _curve(a, b) for a, b in transitive_reduction(edges) if a in _PLACES and b in _PLACES and b != "report"
    )
    boxes = "".join(
        _box(node, status.get(node, "absent"), seconds.get(node, 0.0), seconds.get(node, 0.0) / longest)
        for node in NODES
    )
    return (
        f'<div class="dag"><svg viewBox="0 0 {width} {height}" role="img" aria-label="stages of the run">'
        f"{lanes}{curves}{boxes}</svg></div>"
    )


def transitive_reduction(edges: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """The edges that no longer path replaces (the transitive reduction of an acyclic graph)."""
    following: dict[str, set[str]] = {}
    for producer, consumer in edges:
        following.setdefault(producer, set()).add(consumer)

    def reaches(start: str, goal: str) -> bool:
        return goal == start or any(reaches(node, goal) for node in following.get(start, ()))

    return [(a, b) for a, b in edges if not any(reaches(node, b) for node in following[a] - {b})]


def _place(node: str) -> tuple[float, float]:
    for lane, nodes in enumerate(AREAS.values()):
        if node in nodes:
            return _LEFT + nodes.index(node) * _COLUMN, 6 + lane * _LANE
    raise KeyError(node)


_PLACES = {node: _place(node) for node in NODES}


def _box(node: str, status: str, seconds: float, share: float) -> str:
    x, y = _PLACES[node]
    note = _WORDS.get(status, status)
    # Minutes in one word: a box is 15 characters wide.
    took = f"{seconds / 60:.1f} min" if seconds >= 60 else duration(seconds)
    time = "" if status in ("absent", "running") else took
    text = " ".join(part for part in (time, note) if part)
    fill = max(2.0, share * (_BOX - 12)) if seconds else 0
    return (
        f'<rect class="{escape(status)}" x="{x}" y="{y}" width="{_BOX}" height="{_TALL}" rx="7"/>'
        f'<text class="name" x="{x + 7}" y="{y + 16}">{escape(node)}</text>'
        f'<text x="{x + 7}" y="{y + 30}">{escape(text)}</text>'
        f'<rect class="fill" x="{x + 6}" y="{y + 35}" width="{fill:.1f}" height="3" rx="1.5"/>'
    )


def _curve(producer: str, consumer: str) -> str:
    (ax, ay), (bx, by) = _PLACES[producer], _PLACES[consumer]
    middle = _TALL / 2
    if ay == by and bx > ax:
        if bx - ax <= _COLUMN:
            return f'<path class="edge" d="M{ax + _BOX} {ay + middle}H{bx}"/>'
        # Over the boxes between the two, in the gap above or below the lane.
        dip = ay + _TALL + 12
        start = f"M{ax + _BOX - 12} {ay + _TALL}"
        return f'<path class="edge" d="{start}C{ax + _BOX} {dip} {bx} {dip} {bx + 12} {by + _TALL}"/>'
    down = by > ay
    start, end = (ay + _TALL, by) if down else (ay, by + _TALL)
    x1, x2 = ax + _BOX * 0.6, bx + _BOX * 0.35
    bend = (end - start) / 2
    turn = f"C{x1:.0f} {start + bend:.0f} {x2:.0f} {end - bend:.0f} {x2:.0f} {end}"
    return f'<path class="edge" d="M{x1:.0f} {start}{turn}"/>'
