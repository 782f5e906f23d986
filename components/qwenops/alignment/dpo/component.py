"""KFP component of offline preference optimisation."""

from kfp import dsl

from qwenops.recipe.image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def dpo(
    config: str,
    checkpoint: dsl.Input[dsl.Model],
    ranked: dsl.Input[dsl.Dataset],
    synthesized: dsl.Input[dsl.Dataset],
    demonstrations: dsl.Input[dsl.Dataset],
    output: dsl.Output[dsl.Model],
    metrics: dsl.Output[dsl.Metrics],
    summary: dsl.Output[dsl.Markdown],
    page: dsl.Output[dsl.HTML],
):
    """Offline preference optimisation (DPO): the SFT model learns to prefer chosen over rejected responses.

    Reads the SFT checkpoint, the preference pairs of `rank` and `synthesize`, and held-out questions from the
    demonstrations; writes a chat checkpoint, its pass rate and that of a control which saw the chosen
    responses only. A minute in `tiny`. When it fails, look at the margin and loss curves, then at summary.md.
    """
    from qwenops.platform.launch.execute import execute

    inputs = {
        "checkpoint": checkpoint.path,
        "ranked": ranked.path,
        "synthesized": synthesized.path,
        "demonstrations": demonstrations.path,
    }
    execute("alignment.dpo", config, inputs, output, metrics=metrics, summary=summary, page=page)
