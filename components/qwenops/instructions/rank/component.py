"""The Kubeflow component of the stage `rank`."""

from kfp import dsl

from qwenops.recipe.image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def rank(
    config: str,
    instructions: dsl.Input[dsl.Dataset],
    checkpoint: dsl.Input[dsl.Model],
    output: dsl.Output[dsl.Dataset],
    metrics: dsl.Output[dsl.Metrics],
    summary: dsl.Output[dsl.Markdown],
    page: dsl.Output[dsl.HTML],
):
    """Draw responses with several decoding strategies and have them ranked by people or the machine judge.

    From open prompts and the seed chat model to demonstrations and preference pairs. Half a minute in `tiny`. When
    it fails, look at gate/preferences.html; when people rank, at annotation_tasks.jsonl.
    """
    from qwenops.platform.launch.execute import execute

    execute(
        "instructions.rank",
        config,
        {"instructions": instructions.path, "checkpoint": checkpoint.path},
        output,
        metrics=metrics,
        summary=summary,
        page=page,
    )
