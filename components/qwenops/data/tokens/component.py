"""The Kubeflow component of tokenisation."""

from kfp import dsl

from qwenops.recipe.image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def tokens(
    config: str,
    documents: dsl.Input[dsl.Dataset],
    tokenizer: dsl.Input[dsl.Artifact],
    mixture: dsl.Input[dsl.Artifact],
    output: dsl.Output[dsl.Dataset],
    metrics: dsl.Output[dsl.Metrics],
    summary: dsl.Output[dsl.Markdown],
    page: dsl.Output[dsl.HTML],
):
    """Encode the documents into shuffled token shards with the mixture's weights.

    From clean documents, a tokenizer and mixture weights to shards, an index and digests. Takes seconds per 10 MB. When
    it fails, gate/tokens.html says which property of the ids is wrong.
    """
    from qwenops.platform.launch.execute import execute

    inputs = {"documents": documents.path, "tokenizer": tokenizer.path, "mixture": mixture.path}
    execute("data.tokens", config, inputs, output, metrics=metrics, summary=summary, page=page)
