"""KFP wrapper of the long-context evaluation."""

from kfp import dsl

from qwenops.recipe.image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def long_context(
    config: str,
    run_name: str,
    checkpoint: dsl.Input[dsl.Model],
    tokens: dsl.Input[dsl.Dataset],
    output: dsl.Output[dsl.Artifact],
):
    """Find needles and score text far beyond the trained length: plain, YaRN and Dual Chunk Attention.

    Reads the extended checkpoint and the held-out token shards; writes `grid.json` and `summary.md`. About two minutes
    in the tiny recipe. When it fails for lack of text, lower `multiples`.

    Args:
        config: The stage's slice of the recipe, canonical JSON.
        run_name: Name of the run, shown in logs.
        checkpoint: The extended base checkpoint.
        tokens: Token shards.
        output: The grid.
    """
    from qwenops.platform.stage import execute

    execute("evaluation.long_context", config, {"checkpoint": checkpoint.uri, "tokens": tokens.uri}, output)
