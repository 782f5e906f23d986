"""KFP component of the register stage."""

from kfp import dsl

from qwenops.recipe.image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def register(
    config: str,
    model: dsl.Input[dsl.Artifact],
    upcycle: dsl.Input[dsl.Artifact],
    reward: dsl.Input[dsl.Artifact],
    dpo: dsl.Input[dsl.Artifact],
    online: dsl.Input[dsl.Artifact],
    benchmarks: dsl.Input[dsl.Artifact],
    long_context: dsl.Input[dsl.Artifact],
    safety: dsl.Input[dsl.Artifact],
    multilingual: dsl.Input[dsl.Artifact],
    contamination: dsl.Input[dsl.Artifact],
    output: dsl.Output[dsl.Artifact],
    metrics: dsl.Output[dsl.Metrics],
    summary: dsl.Output[dsl.Markdown],
):
    """Judge the exported model by the gate and register it in MLflow; seconds.

    From: the exported model and the figures of the alignment and evaluation stages. To: register.json with the verdict
    and a sentence per rule, a model version with alias `candidate`, and `champion` when the gate passes. A failed gate
    does not fail this step; look at its summary. It fails when the registry cannot be reached.

    Args:
        config: The stage's slice of the recipe, canonical JSON.
        model: The exported model.
        upcycle: MoE checkpoint and its comparison.
        reward: Reward model.
        dpo: Checkpoint before the online stage.
        online: Final checkpoint.
        benchmarks: Benchmark figures.
        long_context: Needle grids.
        safety: Safety figures.
        multilingual: Figures by language.
        contamination: Contaminated shares.
        output: The verdict.
        metrics: The stage's main figures.
        summary: Counts, warnings and figures.
    """
    from qwenops.platform.launch.execute import execute

    inputs = {
        "model": model.path,
        "upcycle": upcycle.path,
        "reward": reward.path,
        "dpo": dpo.path,
        "online": online.path,
        "benchmarks": benchmarks.path,
        "long_context": long_context.path,
        "safety": safety.path,
        "multilingual": multilingual.path,
        "contamination": contamination.path,
    }
    execute("delivery.register", config, inputs, output, metrics=metrics, summary=summary)
