"""The first node of every DAG: recipe text in, one slice per stage out."""

from typing import NamedTuple

from kfp import dsl

from qwenops.recipe.image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def resolve_recipe(
    recipe: str,
) -> NamedTuple(
    "Slices",
    [
        ("collect", str),
        ("ingest", str),
        ("quality", str),
        ("dedup", str),
        ("decontaminate", str),
        ("tokenizer", str),
        ("mixture", str),
        ("tokens", str),
        ("pretrain", str),
        ("extend", str),
        ("upcycle", str),
        ("ontology", str),
        ("select", str),
        ("evolve", str),
        ("sft_seed", str),
        ("rank", str),
        ("synthesize", str),
        ("sft", str),
        ("reward", str),
        ("dpo", str),
        ("online", str),
        ("benchmarks", str),
        ("long_context", str),
        ("safety", str),
        ("multilingual", str),
        ("contamination", str),
        ("export", str),
        ("register", str),
        ("report", str),
    ],
):
    """Check the recipe strictly and cut it into one slice per stage, so that each stage is cached by its own slice.

    Takes a second. When it fails, the recipe text of this run is wrong: the message names the dotted field.
    """
    from qwenops.recipe.schema import NODES, resolve

    slices = resolve(recipe)
    return tuple(slices[node] for node in NODES)
