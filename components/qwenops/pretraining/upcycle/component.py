"""KFP wrapper of the upcycle stage."""

from kfp import dsl

from qwenops.recipe.image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def upcycle(
    config: str,
    tokens: dsl.Input[dsl.Dataset],
    tokenizer: dsl.Input[dsl.Artifact],
    checkpoint: dsl.Input[dsl.Model],
    output: dsl.Output[dsl.Model],
    metrics: dsl.Output[dsl.Metrics],
    summary: dsl.Output[dsl.Markdown],
    page: dsl.Output[dsl.HTML],
):
    """Turn the dense checkpoint into a mixture of experts and train it on, beside a dense control.

    Reads the extended dense checkpoint and the token shards; writes a Qwen2-MoE checkpoint. Under a minute in the tiny
    recipe. When it fails or an expert is dead, look at `summary.md` and the loss curves.

    Args:
        config: The stage's slice of the recipe, canonical JSON.
        tokens: Token shards.
        tokenizer: The tokenizer.
        checkpoint: The dense checkpoint.
        output: The mixture's checkpoint.
        metrics: The stage's main figures.
        summary: Counts, warnings and figures.
        page: Curves.
    """
    from qwenops.platform.launch.execute import execute

    inputs = {"tokens": tokens.path, "tokenizer": tokenizer.path, "checkpoint": checkpoint.path}
    execute("pretraining.upcycle", config, inputs, output, metrics=metrics, summary=summary, page=page)
