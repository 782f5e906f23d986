"""`quality` as a Kubeflow component."""

from kfp import dsl

from qwenops.recipe.image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def quality(
    config: str,
    documents: dsl.Input[dsl.Dataset],
    output: dsl.Output[dsl.Dataset],
    metrics: dsl.Output[dsl.Metrics],
    summary: dsl.Output[dsl.Markdown],
):
    """Drop low-quality documents: heuristic rules, then a classifier trained on what passes and fails them.

    From ingest's documents to documents/part-*.parquet with a quality score. Takes about 1 s per MB of text and core.
    When it fails: funnel.json counts the reasons, dropped_sample.jsonl shows some, quality.json has the AUC.
    """
    from qwenops.platform.launch.execute import execute

    execute("data.quality", config, {"documents": documents.path}, output, metrics=metrics, summary=summary)
