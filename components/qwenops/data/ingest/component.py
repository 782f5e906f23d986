"""`ingest` as a Kubeflow component."""

from kfp import dsl

from qwenops.recipe.image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def ingest(
    config: str,
    pages: dsl.Input[dsl.Dataset],
    output: dsl.Output[dsl.Dataset],
    metrics: dsl.Output[dsl.Metrics],
    summary: dsl.Output[dsl.Markdown],
):
    """Turn raw pages into documents: charset, main text of HTML, language, train or heldout.

    From collect's pages to documents/part-*.parquet. Takes about 1 s per thousand pages and core with resiliparse,
    ten times that with trafilatura. When it fails: funnel.json counts the reasons, dropped_sample.jsonl shows some.
    """
    from qwenops.platform.launch.execute import execute

    execute("data.ingest", config, {"pages": pages.path}, output, metrics=metrics, summary=summary)
