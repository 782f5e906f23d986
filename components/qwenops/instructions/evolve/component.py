"""The Kubeflow component of the stage `evolve`."""

from kfp import dsl

from qwenops.recipe.image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def evolve(
    config: str,
    instructions: dsl.Input[dsl.Dataset],
    output: dsl.Output[dsl.Dataset],
    metrics: dsl.Output[dsl.Metrics],
    summary: dsl.Output[dsl.Markdown],
):
    """Make instructions harder and part them into demonstrations, open prompts and held-out tasks.

    From chosen instructions to the seed demonstrations of the first SFT and the prompts that rank and synthesize
    answer. Takes seconds by rules; with a language model one request per parent. When it fails, look at the drop
    counts in the manifest and at difficulty.json.
    """
    from qwenops.platform.launch.execute import execute

    execute(
        "instructions.evolve", config, {"instructions": instructions.path}, output, metrics=metrics, summary=summary
    )
