"""The Kubeflow component of tokenizer training."""

from kfp import dsl

from qwenops.recipe.image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def tokenizer(
    config: str,
    documents: dsl.Input[dsl.Dataset],
    output: dsl.Output[dsl.Artifact],
    metrics: dsl.Output[dsl.Metrics],
    summary: dsl.Output[dsl.Markdown],
):
    """Train a byte-level BPE tokenizer of Qwen's kind on text balanced over languages.

    From clean documents to a transformers tokenizer folder. Takes seconds per 10 MB. When it fails, a text was not
    given back by decoding: the message shows it.
    """
    from qwenops.platform.launch.execute import execute

    execute("data.tokenizer", config, {"documents": documents.path}, output, metrics=metrics, summary=summary)
