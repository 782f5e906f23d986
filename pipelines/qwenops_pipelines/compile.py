"""Recipe, placement and pipeline to KFP YAML, byte for byte repeatable; and the compiled files that lie in git.

Placements for clusters only are kept compiled: nobody uploads the laptop's pipeline.
"""

import argparse
import tempfile
from collections.abc import Iterator
from pathlib import Path

from kfp import compiler

from qwenops.recipe.placement import Placement
from qwenops.recipe.schema import Recipe
from qwenops_pipelines.dags.build import build
from qwenops_pipelines.dags.pipelines import PIPELINES, Pipeline
from qwenops_pipelines.meshes import check_fit
from qwenops_pipelines.placements import by_name
from qwenops_pipelines.recipes import RECIPES, load_recipe

COMPILED = Path(__file__).parents[1] / "compiled"


def compile_pipeline(
    recipe: Recipe,
    placement: Placement,
    out: Path,
    *,
    pipeline: Pipeline = PIPELINES["full"],
    until: str = "",
) -> None:
    """Write the IR YAML of the pipeline to `out`, replacing it in one step.

    Raises:
        RecipeError: the recipe does not fit the placement.
    """
    check_fit(recipe, placement)
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent) as folder:
        draft = Path(folder) / "pipeline.yaml"
        compiler.Compiler().compile(build(recipe, placement, pipeline, until), str(draft))
        draft.replace(out)


def shipped_pipelines(folder: Path) -> Iterator[tuple[str, str, Pipeline, Path]]:
    """Recipe, placement, pipeline and file below `folder` of everything that is kept compiled.

    A recipe is the default of a text field and changes nothing else, so its parts need not be kept for each.
    """
    # The steps of smol have fewer rows than that node has workers.
    chosen = [(recipe, "h200_node", PIPELINES["full"]) for recipe in RECIPES if recipe != "smol"]
    chosen += [("tiny", "h200_node", pipeline) for name, pipeline in PIPELINES.items() if name != "full"]
    chosen += [("smoke", "kind", PIPELINES["full"])]
    for recipe, placement, pipeline in chosen:
        yield recipe, placement, pipeline, folder / placement / f"{recipe}.{pipeline.name}.yaml"


def compile_shipped(folder: Path) -> list[Path]:
    """Write every shipped pipeline below `folder`, remove what is shipped no more; returns the files."""
    for stale in folder.glob("*/*.yaml"):
        stale.unlink()
    written: list[Path] = []
    for recipe, placement, pipeline, path in shipped_pipelines(folder):
        compile_pipeline(load_recipe(recipe, []), by_name(placement), path, pipeline=pipeline)
        written.append(path)
    return written


def main() -> None:
    """Rewrite the compiled pipelines: `python -m qwenops_pipelines.compile [FOLDER]`."""
    parser = argparse.ArgumentParser(description="Rewrite the compiled pipelines.")
    parser.add_argument("folder", type=Path, nargs="?", default=COMPILED, help="where (default pipelines/compiled)")
    print(f"wrote {len(compile_shipped(parser.parse_args().folder))} pipelines")


if __name__ == "__main__":
    main()
