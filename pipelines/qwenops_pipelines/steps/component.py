"""KFP components of the steps that belong to no stage."""

# Kubeflow reads the outputs of `resolve_recipe` from a NamedTuple made in place.
# pyright: reportInvalidTypeForm=false

from typing import NamedTuple

from kfp import dsl

from qwenops.recipe.image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def resolve_recipe(
    recipe: str,
    run_name: str,
    pipeline: str,
    start_from: str,
) -> NamedTuple(
    "Slices",
    [
        ("collect", str),
        ("ingest", str),
        ("quality", str),
        ("dedup", str),
        ("decontaminate", str),
        ("tokenizer", str),
        ("mixture", str),
        ("tokens", str),
        ("pretrain", str),
        ("extend", str),
        ("upcycle", str),
        ("ontology", str),
        ("select", str),
        ("evolve", str),
        ("sft_seed", str),
        ("rank", str),
        ("synthesize", str),
        ("sft", str),
        ("reward", str),
        ("dpo", str),
        ("online", str),
        ("benchmarks", str),
        ("long_context", str),
        ("safety", str),
        ("multilingual", str),
        ("contamination", str),
        ("export", str),
        ("register", str),
        ("report", str),
        ("earlier", str),
    ],
):
    """Check the recipe strictly, store one slice per stage, find the earlier artifacts, open the MLflow run.

    Takes a second and is never cached. When it fails, the recipe text of this run is wrong (the message names the
    dotted field), or an artifact to start from is missing.
    """
    from qwenops.recipe.schema import NODES
    from qwenops_pipelines.steps.begin import begin

    begun = begin(recipe, run_name, pipeline, start_from)
    return tuple(begun[name] for name in (*NODES, "earlier"))


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def earlier_for_pretraining(earlier: str, tokenizer: dsl.Output[dsl.Artifact], tokens: dsl.Output[dsl.Dataset]):
    """Import the token shards and the tokenizer of an earlier run. Seconds."""
    from qwenops_pipelines.steps.import_artifacts import import_artifacts

    import_artifacts(earlier, {"tokenizer": tokenizer, "tokens": tokens})


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def earlier_for_post_training(
    earlier: str,
    decontaminate: dsl.Output[dsl.Dataset],
    tokens: dsl.Output[dsl.Dataset],
    extend: dsl.Output[dsl.Model],
):
    """Import the clean documents, the token shards and the base model of an earlier run. Seconds."""
    from qwenops_pipelines.steps.import_artifacts import import_artifacts

    import_artifacts(earlier, {"decontaminate": decontaminate, "tokens": tokens, "extend": extend})


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def earlier_for_evaluation(
    earlier: str,
    decontaminate: dsl.Output[dsl.Dataset],
    tokenizer: dsl.Output[dsl.Artifact],
    tokens: dsl.Output[dsl.Dataset],
    extend: dsl.Output[dsl.Model],
    upcycle: dsl.Output[dsl.Model],
    evolve: dsl.Output[dsl.Dataset],
    sft_seed: dsl.Output[dsl.Model],
    synthesize: dsl.Output[dsl.Dataset],
    reward: dsl.Output[dsl.Model],
    dpo: dsl.Output[dsl.Model],
    online: dsl.Output[dsl.Model],
):
    """Import the data and the models of an earlier run. Seconds."""
    from qwenops_pipelines.steps.import_artifacts import import_artifacts

    data = {"decontaminate": decontaminate, "tokenizer": tokenizer, "tokens": tokens}
    answers = {"evolve": evolve, "synthesize": synthesize}
    models = {"extend": extend, "upcycle": upcycle, "sft_seed": sft_seed, "reward": reward}
    import_artifacts(earlier, {**data, **answers, **models, "dpo": dpo, "online": online})


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def enforce_gate(verdict: dsl.Input[dsl.Artifact], failed_gate: str):
    """End the run as failed when the evaluation gate did not pass and `failed_gate` is "fail". Seconds.

    When it fails, the message holds the gate's reasons; the model is registered as a candidate and champion stays
    where it was.
    """
    from qwenops_pipelines.steps.gate import enforce_gate

    enforce_gate(verdict.path, failed_gate)


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def finish_run(
    recipe: str,
    run_name: str,
    pipeline: str,
    status: dsl.PipelineTaskFinalStatus,
    metrics: dsl.Output[dsl.Metrics],
    summary: dsl.Output[dsl.Markdown],
    page: dsl.Output[dsl.HTML],
):
    """Publish what the run did (run.json, the report, MLflow) and free what it holds on the cluster; always runs.

    Seconds. When it fails, the cluster was still freed: the message says what could not be published.
    """
    from qwenops_pipelines.steps.finish import finish

    finish(recipe, run_name, pipeline, status, metrics=metrics, summary=summary, page=page)
