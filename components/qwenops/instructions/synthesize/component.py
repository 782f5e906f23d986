"""The Kubeflow component of the stage `synthesize`."""

from kfp import dsl

from qwenops.recipe.image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def synthesize(
    config: str,
    instructions: dsl.Input[dsl.Dataset],
    checkpoint: dsl.Input[dsl.Model],
    documents: dsl.Input[dsl.Dataset],
    output: dsl.Output[dsl.Dataset],
    metrics: dsl.Output[dsl.Metrics],
    summary: dsl.Output[dsl.Markdown],
    page: dsl.Output[dsl.HTML],
):
    """Synthesize data: rejection sampling, execution feedback, repurposing, constitutional feedback.

    From open prompts, the seed chat model and documents to demonstrations and preference pairs. Under a minute in
    `tiny`. When it fails, look at summary.json (what each strategy accepted) and gate/preferences.html.
    """
    from qwenops.platform.launch.execute import execute

    inputs = {"instructions": instructions.path, "checkpoint": checkpoint.path, "documents": documents.path}
    execute("instructions.synthesize", config, inputs, output, metrics=metrics, summary=summary, page=page)
