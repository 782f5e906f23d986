"""KFP wrapper of the long-context evaluation."""

from kfp import dsl

from qwenops.recipe.image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def long_context(
    config: str,
    checkpoint: dsl.Input[dsl.Model],
    tokens: dsl.Input[dsl.Dataset],
    output: dsl.Output[dsl.Artifact],
    metrics: dsl.Output[dsl.Metrics],
    summary: dsl.Output[dsl.Markdown],
    page: dsl.Output[dsl.HTML],
):
    """Find needles and score text far beyond the trained length: plain, YaRN and Dual Chunk Attention.

    Reads the extended checkpoint and the held-out token shards; writes `grid.json` and `summary.md`. About two minutes
    in the tiny recipe. When it fails for lack of text, lower `multiples`.

    Args:
        config: The stage's slice of the recipe, canonical JSON.
        checkpoint: The extended base checkpoint.
        tokens: Token shards.
        output: The grid.
        metrics: The stage's main figures.
        summary: Counts, warnings and figures.
        page: Needles by mode and length.
    """
    from qwenops.platform.launch.execute import execute

    execute(
        "evaluation.long_context",
        config,
        {"checkpoint": checkpoint.path, "tokens": tokens.path},
        output,
        metrics=metrics,
        summary=summary,
        page=page,
    )
