"""The Kubeflow component of the stage `ontology`."""

from kfp import dsl

from qwenops.recipe.image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def ontology(
    config: str,
    documents: dsl.Input[dsl.Dataset],
    output: dsl.Output[dsl.Dataset],
    metrics: dsl.Output[dsl.Metrics],
    summary: dsl.Output[dsl.Markdown],
):
    """Gather instructions (tasks, documents, safety prompts), tag them and normalise the tags into an ontology.

    From decontaminated documents to tagged instructions, ontology.json and a table that people can refine. Seconds
    with the lexical tagger; with a language model one request per instruction. When it fails, look at
    ontology.csv for edits that name a tag which is gone, then at the endpoint of the tagger.
    """
    from qwenops.platform.launch.execute import execute

    execute("instructions.ontology", config, {"documents": documents.path}, output, metrics=metrics, summary=summary)
