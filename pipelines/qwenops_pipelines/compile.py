"""Recipe and placement to pipeline YAML, byte for byte repeatable."""

import tempfile
from pathlib import Path

from kfp import compiler

from qwenops.recipe.placement import Placement
from qwenops.recipe.schema import Recipe
from qwenops_pipelines.dags.full import build


def compile_pipeline(recipe: Recipe, placement: Placement, out: Path, *, until: str = "report") -> None:
    """Write the IR YAML of the pipeline to `out`, replacing it in one step."""
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent) as folder:
        draft = Path(folder) / "pipeline.yaml"
        compiler.Compiler().compile(build(recipe, placement, until), str(draft))
        draft.replace(out)
