"""Kubeflow component of the contamination stage."""

from kfp import dsl

from qwenops.recipe.image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def contamination(
    config: str,
    documents: dsl.Input[dsl.Dataset],
    demonstrations: dsl.Input[dsl.Dataset],
    synthesized: dsl.Input[dsl.Dataset],
    benchmarks: dsl.Input[dsl.Artifact],
    output: dsl.Output[dsl.Artifact],
    metrics: dsl.Output[dsl.Metrics],
    summary: dsl.Output[dsl.Markdown],
):
    """Find the test items that the training data contains, and score the models without them.

    Reads documents, conversations and the benchmark stage's items; writes contamination.json and summary.md. One pass
    over the training text. When it fails: see whether the benchmark stage wrote items.jsonl.
    """
    from qwenops.platform.launch.execute import execute

    inputs = {"documents": documents.path, "demonstrations": demonstrations.path, "synthesized": synthesized.path}
    execute(
        "evaluation.contamination",
        config,
        {**inputs, "benchmarks": benchmarks.path},
        output,
        metrics=metrics,
        summary=summary,
    )
