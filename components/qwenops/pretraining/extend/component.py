"""KFP component of context extension."""

from kfp import dsl

from qwenops.recipe.image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def extend(
    config: str,
    tokens: dsl.Input[dsl.Dataset],
    tokenizer: dsl.Input[dsl.Artifact],
    checkpoint: dsl.Input[dsl.Model],
    output: dsl.Output[dsl.Model],
    metrics: dsl.Output[dsl.Metrics],
    summary: dsl.Output[dsl.Markdown],
    page: dsl.Output[dsl.HTML],
):
    """Train the base model on longer rows under a larger RoPE base.

    From: token shards, their tokenizer, the pre-trained checkpoint. To: a checkpoint at the long context, with
    curves and `summary.md`. Takes about a minute for `tiny` on two cores. When it fails, compare `loss.before` (old
    base) with `loss.first` (new base, untrained) in the metrics.
    """
    from qwenops.platform.launch.execute import execute

    execute(
        "pretraining.extend",
        config,
        {"tokens": tokens.path, "tokenizer": tokenizer.path, "checkpoint": checkpoint.path},
        output,
        metrics=metrics,
        summary=summary,
        page=page,
    )
