"""`collect` as a Kubeflow component."""

from kfp import dsl

from qwenops.recipe.image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def collect(
    config: str,
    output: dsl.Output[dsl.Dataset],
    metrics: dsl.Output[dsl.Metrics],
    summary: dsl.Output[dsl.Markdown],
    page: dsl.Output[dsl.HTML],
):
    """Collect raw pages from the configured sources (packages, folders, the installed environment).

    Writes pages/part-*.parquet with licence and declared language. Takes seconds for cached downloads, minutes for
    a first run. When it fails: sources.json names what could not be reached, gate/pages.html what was refused.
    """
    from qwenops.platform.launch.execute import execute

    execute("data.collect", config, {}, output, metrics=metrics, summary=summary, page=page)
