"""`rehearsal`: a recipe with all its choices at toy dimensions, and what it is not.

What a recipe decides (optimisers, schedules, losses, strategies, controls, modes, judges, gate) stays as it is, so a
setting that is added later is rehearsed without a word here. Only what is named below gets smaller, and what one
machine does not have is stood in for: engines of other models, people, weights that exist. `changes` compares
the two recipes field by field, so no change can be left out of what is shown.

A rehearsal shows that every stage starts, reads what the one before wrote, and ends. It says nothing about quality,
memory or time, and nothing about what was stood in for.
"""

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from qwenops.data.collect.config import CollectConfig
from qwenops.generation.config import EngineConfig
from qwenops.recipe.codec import canonical
from qwenops.recipe.schema import NODES, Recipe, read_recipe
from qwenops_pipelines.dimensions import shrink

SUFFIX = "-rehearsal"
_LONGEST_NAME = 63
_WIDEST = 48

# Stages that ask another model, and the kind that works without one.
_WITHOUT_A_TEACHER: dict[tuple[str, str], tuple[str, Any]] = {
    ("quality", "rubric.engine"): ("rubric.num_documents", 0),
    ("ontology", "engine"): ("tagger", "lexical"),
    ("evolve", "engine"): ("evolver", "rules"),
    ("synthesize", "writer_engine"): ("writer", "written"),
    ("safety", "judge_engine"): ("judge", "classifier"),
}


class Change(NamedTuple):
    """One field whose value a rehearsal does not take from the recipe; names are dotted, `[0]` is a list's first."""

    field: str
    recipe: Any
    rehearsed: Any


def rehearsal(recipe: Recipe) -> Recipe:
    """The recipe to run where `recipe` itself is too large to be tried.

    Args:
        recipe: What is to be trained in earnest.

    Raises:
        RecipeError: its dimensions do not go together at this size.
    """
    plain: dict[str, Any] = recipe.model_dump(mode="json")
    plain["name"] = recipe.name[: _LONGEST_NAME - len(SUFFIX)] + SUFFIX
    for node in ("export", "register"):
        plain[node]["model_name"] += SUFFIX
    _stand_in(recipe, plain)
    shrink(recipe, plain)
    return read_recipe(canonical(plain))


def changes(recipe: Recipe, rehearsed: Recipe) -> list[Change]:
    """Every field in which `rehearsed` differs from `recipe`, in the order of the DAG."""
    before, after = (dict(_leaves(value.model_dump(mode="json"))) for value in (recipe, rehearsed))
    return [
        Change(field, before.get(field), after.get(field))
        for field in {**before, **after}
        if before.get(field) != after.get(field)
    ]


def describe_changes(recipe: Recipe, rehearsed: Recipe) -> str:
    """`changes` as a table; nodes, and parts of a list, in which the same field changes alike share a line."""
    nodes: dict[tuple[str, str, str], dict[str, None]] = {}
    for change in changes(recipe, rehearsed):
        node, _, field = re.sub(r"\[\d+\]", "[]", change.field).partition(".")
        nodes.setdefault((field, _shown(change.recipe), _shown(change.rehearsed)), {})[node] = None
    rows = [("field", "recipe", "rehearsed")]
    rows += [(", ".join(names) + (f": {row[0]}" if row[0] else ""), *row[1:]) for row, names in nodes.items()]
    first, second = (max(len(row[place]) for row in rows) for place in (0, 1))
    return "\n".join(f"{field:<{first}}  {value:<{second}}  {new}" for field, value, new in rows)


def _shown(value: Any) -> str:
    text = canonical(value)
    return text if len(text) <= _WIDEST else f"{text[: _WIDEST - 3]}..."


def _leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict) and value:
        for name, part in value.items():
            yield from _leaves(part, f"{path}.{name}" if path else name)
    elif isinstance(value, list) and value and isinstance(value[0], dict):
        for place, part in enumerate(value):
            yield from _leaves(part, f"{path}[{place}]")
    else:
        yield path, value


def _stand_in(recipe: Recipe, plain: dict[str, Any]) -> None:
    """Replace what this machine does not have: other models, people, weights that exist."""
    for node in NODES:
        for use in getattr(recipe, node).engines():
            if use.engine.kind == "endpoint":
                continue
            field, value = use.field, use.engine.model_copy(update={"kind": "in_process", "model": ""})
            if use.engine.model and (node, use.field) in _WITHOUT_A_TEACHER:
                field, value = _WITHOUT_A_TEACHER[node, use.field]
            _set(plain[node], field, value.model_dump(mode="json") if isinstance(value, EngineConfig) else value)
    plain["rank"] |= {"judge": "machine", "annotations": ""}
    if not any(source.kind == "python" for source in recipe.collect.sources):
        local = [source.model_dump(mode="json") for source in CollectConfig().sources]
        plain["collect"]["sources"] += [source | {"name": source["name"] + SUFFIX} for source in local]
    # Weights that exist have a size and a length of their own.
    plain["pretrain"]["init_from"] = ""
    plain["tokenizer"] |= {"init_from": "", "base": ""}


def _set(plain: dict[str, Any], field: str, value: Any) -> None:
    *parents, last = field.split(".")
    for parent in parents:
        plain = plain[parent]
    plain[last] = value
