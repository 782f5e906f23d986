"""KFP component of the export stage."""

from kfp import dsl

from qwenops.recipe.image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def export(
    config: str,
    checkpoint: dsl.Input[dsl.Model],
    tokenizer: dsl.Input[dsl.Artifact],
    tokens: dsl.Input[dsl.Dataset],
    output: dsl.Output[dsl.Model],
    metrics: dsl.Output[dsl.Metrics],
    summary: dsl.Output[dsl.Markdown],
):
    """Write the chat model as a transformers folder with its card, and run the transformers quickstart on it.

    From: the last alignment checkpoint, the tokenizer, the token shards (for the check and the card).
    To: one folder that AutoModelForCausalLM loads. Seconds for a small model. When it fails, the message holds the
    end of the quickstart's output or the logit difference.

    Args:
        config: The stage's slice of the recipe, canonical JSON.
        checkpoint: The chat checkpoint.
        tokenizer: The tokenizer.
        tokens: Token shards.
        output: The exported model.
        metrics: The stage's main figures.
        summary: Counts, warnings and figures.
    """
    from qwenops.platform.launch.execute import execute

    inputs = {"checkpoint": checkpoint.path, "tokenizer": tokenizer.path, "tokens": tokens.path}
    execute("delivery.export", config, inputs, output, metrics=metrics, summary=summary)
