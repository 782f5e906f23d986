"""Kubeflow component of the benchmark stage."""

from kfp import dsl

from qwenops.recipe.image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def benchmarks(
    config: str,
    base: dsl.Input[dsl.Model],
    moe: dsl.Input[dsl.Model],
    chat: dsl.Input[dsl.Model],
    output: dsl.Output[dsl.Artifact],
    metrics: dsl.Output[dsl.Metrics],
    summary: dsl.Output[dsl.Markdown],
):
    """Ask the base, mixture-of-experts and chat model every benchmark and score the answers.

    Reads three checkpoints; writes items.jsonl (every prompt, answer and score), scores.json, comparison.json (mixture
    of experts against dense, chat against base) and summary.md. Minutes to hours, with the number of items. When
    it fails: read the warnings for prompts that do not fit the context and for benchmarks without files.
    """
    from qwenops.platform.launch.execute import execute

    execute(
        "evaluation.benchmarks",
        config,
        {"base": base.path, "moe": moe.path, "chat": chat.path},
        output,
        metrics=metrics,
        summary=summary,
    )
