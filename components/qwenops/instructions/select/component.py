"""The Kubeflow component of the stage `select`."""

from kfp import dsl

from qwenops.recipe.image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def select(
    config: str,
    instructions: dsl.Input[dsl.Dataset],
    output: dsl.Output[dsl.Dataset],
    metrics: dsl.Output[dsl.Metrics],
    summary: dsl.Output[dsl.Markdown],
):
    """Choose instructions by tag diversity, semantic richness, complexity and completeness.

    From tagged instructions to the chosen ones; held-out rows pass through. Takes seconds. When it fails, look at
    scores.jsonl in the output: every instruction's four scores and the rules it broke.
    """
    from qwenops.platform.launch.execute import execute

    execute(
        "instructions.select", config, {"instructions": instructions.path}, output, metrics=metrics, summary=summary
    )
