"""Kubeflow component of the safety stage."""

from kfp import dsl

from qwenops.recipe.image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def safety(
    config: str,
    before: dsl.Input[dsl.Model],
    after: dsl.Input[dsl.Model],
    output: dsl.Output[dsl.Artifact],
    metrics: dsl.Output[dsl.Metrics],
    summary: dsl.Output[dsl.Markdown],
    classes: dsl.Output[dsl.ClassificationMetrics],
):
    """Ask harmful and benign prompts of the model before and after alignment; count harmful responses and refusals.

    Reads two checkpoints; writes scores.json and summary.md (figures only), judge.json, and responses.jsonl, which
    holds prompts and responses and may offend. Seconds to minutes. When it fails: see whether the prompts
    file has prompt, category and language in each line.
    """
    from qwenops.platform.launch.execute import execute

    execute(
        "evaluation.safety",
        config,
        {"before": before.path, "after": after.path},
        output,
        metrics=metrics,
        summary=summary,
        classes=classes,
    )
