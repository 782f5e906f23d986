"""The Kubeflow component of the mixture search."""

from kfp import dsl

from qwenops.recipe.image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def mixture(
    config: str,
    documents: dsl.Input[dsl.Dataset],
    tokenizer: dsl.Input[dsl.Artifact],
    output: dsl.Output[dsl.Artifact],
    metrics: dsl.Output[dsl.Metrics],
    summary: dsl.Output[dsl.Markdown],
):
    """Choose the share of each domain and language group by training many tiny proxies on random mixtures.

    From clean documents and a tokenizer to mixture.json. Takes the time of the proxies: half a minute in `tiny`,
    hours on a cluster. When a proxy diverges, lower mixture.training.learning_rate.
    """
    from qwenops.platform.launch.execute import execute

    execute(
        "data.mixture",
        config,
        {"documents": documents.path, "tokenizer": tokenizer.path},
        output,
        metrics=metrics,
        summary=summary,
    )
