"""KFP component of online alignment."""

from kfp import dsl

from qwenops.recipe.image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def online(
    config: str,
    checkpoint: dsl.Input[dsl.Model],
    base: dsl.Input[dsl.Model],
    sft: dsl.Input[dsl.Model],
    reward: dsl.Input[dsl.Model],
    demonstrations: dsl.Input[dsl.Dataset],
    output: dsl.Output[dsl.Model],
    metrics: dsl.Output[dsl.Metrics],
    summary: dsl.Output[dsl.Markdown],
    page: dsl.Output[dsl.HTML],
):
    """Online alignment: sample with the current policy, reward, learn from best against worst, repeat.

    Reads the offline-DPO policy, the base and SFT models (the merging direction), the reward model and training
    prompts; writes the best policy that the reward-hacking guard accepted, and the figures of the same run with
    plain AdamW. A minute and a half in `tiny`. When it fails or `rollbacks` is high, look at summary.md and
    rollouts.online.jsonl in the output.
    """
    from qwenops.platform.launch.execute import execute

    inputs = {
        "checkpoint": checkpoint.path,
        "base": base.path,
        "sft": sft.path,
        "reward": reward.path,
        "demonstrations": demonstrations.path,
    }
    execute("alignment.online", config, inputs, output, metrics=metrics, summary=summary, page=page)
