"""KFP component of pre-training."""

from kfp import dsl

from qwenops.recipe.image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def pretrain(
    config: str,
    tokens: dsl.Input[dsl.Dataset],
    tokenizer: dsl.Input[dsl.Artifact],
    output: dsl.Output[dsl.Model],
    metrics: dsl.Output[dsl.Metrics],
    summary: dsl.Output[dsl.Markdown],
    page: dsl.Output[dsl.HTML],
):
    """Train a base model at the short context.

    From: token shards and their tokenizer. To: a checkpoint folder that transformers loads, with curves and
    `summary.md`. Takes most of a run's accelerator time; about three minutes for `tiny` on two cores. When it fails,
    look at the loss curve first; a killed step continues from its last saved state when it is run again.
    """
    from qwenops.platform.launch.execute import execute

    execute(
        "pretraining.pretrain",
        config,
        {"tokens": tokens.path, "tokenizer": tokenizer.path},
        output,
        metrics=metrics,
        summary=summary,
        page=page,
    )
