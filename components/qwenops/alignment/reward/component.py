"""KFP component of the reward model."""

from kfp import dsl

from qwenops.recipe.image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def reward(
    config: str,
    checkpoint: dsl.Input[dsl.Model],
    ranked: dsl.Input[dsl.Dataset],
    synthesized: dsl.Input[dsl.Dataset],
    output: dsl.Output[dsl.Model],
    metrics: dsl.Output[dsl.Metrics],
    summary: dsl.Output[dsl.Markdown],
    page: dsl.Output[dsl.HTML],
):
    """Reward model: the SFT model with a linear head learns which of two responses is better.

    Reads the SFT checkpoint and the preference pairs of `rank` and `synthesize`; writes a checkpoint with a reward
    head and its accuracy on held-out pairs. A minute in `tiny`. When it fails, look at summary.md and at
    tags.*.json (which prompts were drawn) in the output.
    """
    from qwenops.platform.launch.execute import execute

    inputs = {"checkpoint": checkpoint.path, "ranked": ranked.path, "synthesized": synthesized.path}
    execute("alignment.reward", config, inputs, output, metrics=metrics, summary=summary, page=page)
