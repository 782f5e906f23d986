"""Kubeflow component of the multilingual stage."""

from kfp import dsl

from qwenops.recipe.image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def multilingual(
    config: str,
    base: dsl.Input[dsl.Model],
    chat: dsl.Input[dsl.Model],
    tokens: dsl.Input[dsl.Dataset],
    output: dsl.Output[dsl.Artifact],
    metrics: dsl.Output[dsl.Metrics],
    summary: dsl.Output[dsl.Markdown],
):
    """Measure base and chat model by language: held-out loss, language of the responses, exams, people's ratings.

    Reads two checkpoints and the token shards; writes losses.json, responses.jsonl, rating_form.csv for annotators
    and summary.md. Seconds to minutes. When it fails: a filled rating form names the line at fault.
    """
    from qwenops.platform.launch.execute import execute

    execute(
        "evaluation.multilingual",
        config,
        {"base": base.path, "chat": chat.path, "tokens": tokens.path},
        output,
        metrics=metrics,
        summary=summary,
    )
