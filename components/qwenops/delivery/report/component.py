"""KFP component of the report stage."""

from kfp import dsl

from qwenops.recipe.image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def report(
    config: str,
    collect: dsl.Input[dsl.Artifact],
    ingest: dsl.Input[dsl.Artifact],
    quality: dsl.Input[dsl.Artifact],
    dedup: dsl.Input[dsl.Artifact],
    decontaminate: dsl.Input[dsl.Artifact],
    tokenizer: dsl.Input[dsl.Artifact],
    mixture: dsl.Input[dsl.Artifact],
    tokens: dsl.Input[dsl.Artifact],
    pretrain: dsl.Input[dsl.Artifact],
    extend: dsl.Input[dsl.Artifact],
    upcycle: dsl.Input[dsl.Artifact],
    ontology: dsl.Input[dsl.Artifact],
    select: dsl.Input[dsl.Artifact],
    evolve: dsl.Input[dsl.Artifact],
    sft_seed: dsl.Input[dsl.Artifact],
    rank: dsl.Input[dsl.Artifact],
    synthesize: dsl.Input[dsl.Artifact],
    sft: dsl.Input[dsl.Artifact],
    reward: dsl.Input[dsl.Artifact],
    dpo: dsl.Input[dsl.Artifact],
    online: dsl.Input[dsl.Artifact],
    benchmarks: dsl.Input[dsl.Artifact],
    long_context: dsl.Input[dsl.Artifact],
    safety: dsl.Input[dsl.Artifact],
    multilingual: dsl.Input[dsl.Artifact],
    contamination: dsl.Input[dsl.Artifact],
    export: dsl.Input[dsl.Artifact],
    register: dsl.Input[dsl.Artifact],
    output: dsl.Output[dsl.Artifact],
    metrics: dsl.Output[dsl.Metrics],
    summary: dsl.Output[dsl.Markdown],
    page: dsl.Output[dsl.HTML],
):
    """Draw the whole run as one HTML page: curves, funnel, needle maps, gains by stage, safety, warnings; seconds.

    From: every stage. To: report.html, self-contained. When it fails, a manifest or a JSON file of the stage it names
    is damaged; run that stage again.

    Args:
        config: The stage's slice of the recipe, canonical JSON.
        collect: Artifact of the stage `collect`.
        ingest: Artifact of the stage `ingest`.
        quality: Artifact of the stage `quality`.
        dedup: Artifact of the stage `dedup`.
        decontaminate: Artifact of the stage `decontaminate`.
        tokenizer: Artifact of the stage `tokenizer`.
        mixture: Artifact of the stage `mixture`.
        tokens: Artifact of the stage `tokens`.
        pretrain: Artifact of the stage `pretrain`.
        extend: Artifact of the stage `extend`.
        upcycle: Artifact of the stage `upcycle`.
        ontology: Artifact of the stage `ontology`.
        select: Artifact of the stage `select`.
        evolve: Artifact of the stage `evolve`.
        sft_seed: Artifact of the stage `sft_seed`.
        rank: Artifact of the stage `rank`.
        synthesize: Artifact of the stage `synthesize`.
        sft: Artifact of the stage `sft`.
        reward: Artifact of the stage `reward`.
        dpo: Artifact of the stage `dpo`.
        online: Artifact of the stage `online`.
        benchmarks: Artifact of the stage `benchmarks`.
        long_context: Artifact of the stage `long_context`.
        safety: Artifact of the stage `safety`.
        multilingual: Artifact of the stage `multilingual`.
        contamination: Artifact of the stage `contamination`.
        export: Artifact of the stage `export`.
        register: Artifact of the stage `register`.
        output: The page.
        metrics: The stage's main figures.
        summary: Counts, warnings and figures.
        page: The report.
    """
    from qwenops.platform.launch.execute import execute

    inputs = {
        "collect": collect.path,
        "ingest": ingest.path,
        "quality": quality.path,
        "dedup": dedup.path,
        "decontaminate": decontaminate.path,
        "tokenizer": tokenizer.path,
        "mixture": mixture.path,
        "tokens": tokens.path,
        "pretrain": pretrain.path,
        "extend": extend.path,
        "upcycle": upcycle.path,
        "ontology": ontology.path,
        "select": select.path,
        "evolve": evolve.path,
        "sft_seed": sft_seed.path,
        "rank": rank.path,
        "synthesize": synthesize.path,
        "sft": sft.path,
        "reward": reward.path,
        "dpo": dpo.path,
        "online": online.path,
        "benchmarks": benchmarks.path,
        "long_context": long_context.path,
        "safety": safety.path,
        "multilingual": multilingual.path,
        "contamination": contamination.path,
        "export": export.path,
        "register": register.path,
    }
    execute("delivery.report", config, inputs, output, metrics=metrics, summary=summary, page=page)
