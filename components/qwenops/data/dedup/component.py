"""The Kubeflow component of deduplication."""

from kfp import dsl

from qwenops.recipe.image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def dedup(
    config: str,
    documents: dsl.Input[dsl.Dataset],
    output: dsl.Output[dsl.Dataset],
    metrics: dsl.Output[dsl.Metrics],
    summary: dsl.Output[dsl.Markdown],
    page: dsl.Output[dsl.HTML],
):
    """Remove exact and near duplicates: MinHash-LSH finds pairs, exact Jaccard similarity decides.

    From scored documents to documents with one survivor per cluster. Takes seconds per 10 MB and core. When it
    fails: planted.json says what the search missed, gate/documents.html what the gate refused.
    """
    from qwenops.platform.launch.execute import execute

    execute("data.dedup", config, {"documents": documents.path}, output, metrics=metrics, summary=summary, page=page)
