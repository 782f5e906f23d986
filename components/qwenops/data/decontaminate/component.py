"""The Kubeflow component of decontamination."""

from kfp import dsl

from qwenops.recipe.image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def decontaminate(
    config: str,
    documents: dsl.Input[dsl.Dataset],
    output: dsl.Output[dsl.Dataset],
    metrics: dsl.Output[dsl.Metrics],
    summary: dsl.Output[dsl.Markdown],
):
    """Remove documents that contain items of the evaluation sets, by the report's 13-gram and subsequence rule.

    From deduplicated documents to documents that may be trained on. Takes seconds per 10 MB. When it fails, planted
    items got through; contamination.json counts what was found of each set.
    """
    from qwenops.platform.launch.execute import execute

    execute("data.decontaminate", config, {"documents": documents.path}, output, metrics=metrics, summary=summary)
