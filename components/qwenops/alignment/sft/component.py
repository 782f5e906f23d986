"""KFP components of supervised fine-tuning: the early run that is sampled from, and the full one."""

from kfp import dsl

from qwenops.recipe.image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def sft_seed(
    config: str,
    checkpoint: dsl.Input[dsl.Model],
    demonstrations: dsl.Input[dsl.Dataset],
    tokens: dsl.Input[dsl.Dataset],
    output: dsl.Output[dsl.Model],
    metrics: dsl.Output[dsl.Metrics],
    summary: dsl.Output[dsl.Markdown],
    page: dsl.Output[dsl.HTML],
):
    """First supervised fine-tuning: the extended base learns to answer from the evolved demonstrations.

    Reads the extended checkpoint, the evolved demonstrations and, to replay, pre-training text; writes a chat
    checkpoint that `rank` and `synthesize` sample from. A minute in `tiny`. When it fails, look at
    gate/conversations.html in the output (bad rows), then at the loss curve.
    """
    from qwenops.platform.launch.execute import execute

    execute(
        "alignment.sft",
        config,
        {"checkpoint": checkpoint.path, "demonstrations": demonstrations.path, "tokens": tokens.path},
        output,
        metrics=metrics,
        summary=summary,
        page=page,
    )


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def sft(
    config: str,
    checkpoint: dsl.Input[dsl.Model],
    demonstrations: dsl.Input[dsl.Dataset],
    ranked: dsl.Input[dsl.Dataset],
    synthesized: dsl.Input[dsl.Dataset],
    tokens: dsl.Input[dsl.Dataset],
    output: dsl.Output[dsl.Model],
    metrics: dsl.Output[dsl.Metrics],
    summary: dsl.Output[dsl.Markdown],
    page: dsl.Output[dsl.HTML],
):
    """Supervised fine-tuning on all demonstrations: evolved, ranked and synthesized.

    Reads the checkpoint of `sft_seed`, three sets of demonstrations and, to replay, pre-training text; writes a
    chat checkpoint, its pass rate on held-out questions and that of a control which saw the old demonstrations
    only. A minute in `tiny`. When it fails, look at gate/conversations.html in the output (bad rows), then at the
    loss curve.
    """
    from qwenops.platform.launch.execute import execute

    inputs = {
        "checkpoint": checkpoint.path,
        "demonstrations": demonstrations.path,
        "ranked": ranked.path,
        "synthesized": synthesized.path,
        "tokens": tokens.path,
    }
    execute("alignment.sft", config, inputs, output, metrics=metrics, summary=summary, page=page)
