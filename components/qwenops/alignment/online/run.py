"""Online alignment with the merging optimizer, beside the same run with plain AdamW."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from qwenops.alignment.examples import pad_id_of
from qwenops.alignment.online.config import OnlineConfig
from qwenops.alignment.online.guard import AnswerScores, PolicyMetrics
from qwenops.alignment.online.learner import DpoLearner, Learner, adamw_optimizer, merging_optimizer
from qwenops.alignment.online.loop import OnlineLoop, OnlineResult
from qwenops.alignment.online.ppo import PpoLearner, tokenize_demonstrations
from qwenops.alignment.online.rewards import build_reward_function
from qwenops.alignment.online.rollouts import Sampler
from qwenops.alignment.online.screening import filter_by_solve_rate, split_guard_prompts
from qwenops.alignment.pass_rate import PassRate, greedy_answers, measure_pass_rate, sample_questions, verify_answers
from qwenops.alignment.reward_model import load_reward_model
from qwenops.alignment.train import run_on_workers, save_chat_checkpoint
from qwenops.contracts.conversation import PROMPTS, Conversation, read_conversations
from qwenops.errors import ContractError
from qwenops.generation.engine import Sampling
from qwenops.model.checkpoints import load_model, load_tokenizer, to_device
from qwenops.platform.stage.beside import beside
from qwenops.platform.stage.handle import Stage
from qwenops.training.online_merging import direction_from
from qwenops.training.parallel import worker_rank


@dataclass(frozen=True)
class Inputs:
    """The folders this stage reads."""

    checkpoint: Path
    base: Path
    sft: Path
    reward: Path


def run(
    config: OnlineConfig, *, checkpoint: Path, base: Path, sft: Path, reward: Path, demonstrations: Path, stage: Stage
) -> None:
    """Improve the policy episode by episode and publish the best one the guard accepted.

    Args:
        config: What to do.
        checkpoint: The offline-DPO policy: start and reference.
        base: Pre-trained base; with `sft` it gives the merging direction.
        sft: SFT checkpoint.
        reward: The reward model.
        demonstrations: Prompts to sample from, and held-out questions.
        stage: Where to report and write.
    """
    inputs = Inputs(checkpoint, base, sft, reward)
    rows = read_conversations(demonstrations)
    prompts = _read_prompts(demonstrations, config)
    run_on_workers(stage, align, most_workers=1, config=config, inputs=inputs, rows=rows, prompts=prompts)


def align(
    config: OnlineConfig, inputs: Inputs, rows: Sequence[Conversation], prompts: Sequence[Conversation], stage: Stage
) -> None:
    """What the worker runs: improve the policy, measure, repeat with AdamW where that is asked for."""
    checkpoint = inputs.checkpoint
    tokenizer = load_tokenizer(checkpoint)
    loop = _build_loop(config, inputs, tokenizer, prompts, stage)
    questions = sample_questions(rows, config.measure, stage.seed)
    learner = _learner(config, inputs, tokenizer, rows, stage)
    before = measure_pass_rate(learner.policy, tokenizer, questions, config.measure, stage.seed)
    outcome = _improve(stage, loop, learner, "online")
    after = measure_pass_rate(learner.policy, tokenizer, questions, config.measure, stage.seed)
    save_chat_checkpoint(learner.policy, tokenizer, stage, checkpoint, outcome.tokens)
    stage.records = len(outcome.episode_metrics)
    _report(stage, config, outcome, before, after)
    if config.compare_with == "adamw" and config.algorithm == "dpo":
        policy = to_device(load_model(checkpoint), worker_rank().kind)
        twin = DpoLearner(policy, config, adamw_optimizer(policy, config), pad_id_of(tokenizer))
        twin_outcome = _improve(stage, loop, twin, "adamw")
        _report_twin(stage, twin_outcome, measure_pass_rate(policy, tokenizer, questions, config.measure, stage.seed))


def _read_prompts(demonstrations: Path, config: OnlineConfig) -> list[Conversation]:
    """Training prompts that SFT was not shown an answer of; those it was shown only where there are no others."""
    unanswered = read_conversations(demonstrations, "train", PROMPTS) if (demonstrations / PROMPTS).is_file() else []
    rows = unanswered or read_conversations(demonstrations, "train")
    prompts = [row for row in rows if config.prompts == "all" or row.verifier]
    if not prompts:
        raise ContractError(
            "no prompts to sample from",
            expected=f"{config.prompts} prompts of the train split",
            found=len(rows),
            action="look at the instruction stages' rows, or set online.prompts to all",
        )
    return prompts


def _build_loop(
    config: OnlineConfig,
    inputs: Inputs,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Conversation],
    stage: Stage,
) -> OnlineLoop:
    guarded = config.measure.model_copy(update={"prompts": config.guard.prompts})
    questions, others = split_guard_prompts(prompts, guarded, stage.seed)

    source = build_reward_function(config.reward, load_reward_model(inputs.reward).to(worker_rank().kind), tokenizer)

    def measure(policy: PreTrainedModel) -> AnswerScores:
        answers = greedy_answers(policy, tokenizer, questions, guarded)
        return AnswerScores(
            [float(right) for right in verify_answers(questions, answers)], source.score(questions, answers)
        )

    sampling = Sampling(
        n=config.samples,
        temperature=config.temperature,
        top_p=config.top_p,
        max_new_tokens=config.max_new_tokens,
        seed=stage.seed,
    )
    sampler = Sampler(tokenizer, source, sampling, config.measure.batch_tokens, config.cut_penalty)
    if config.screened_prompts:
        stage.metric("prompts.screened", min(config.screened_prompts, len(others)))
        start = to_device(load_model(inputs.checkpoint), worker_rank().kind)
        others = filter_by_solve_rate(start, tokenizer, others, config, sampling, partial(beside, stage))
        stage.metric("prompts.kept", len(others))
    return OnlineLoop(config, sampler, others, measure, stage.seed, beside=partial(beside, stage))


def _learner(
    config: OnlineConfig, inputs: Inputs, tokenizer: PreTrainedTokenizerBase, rows: Sequence[Conversation], stage: Stage
) -> Learner:
    policy, pad_id = to_device(load_model(inputs.checkpoint), worker_rank().kind), pad_id_of(tokenizer)
    if config.algorithm == "ppo":
        text = tokenize_demonstrations(tokenizer, rows, config.max_length_tokens)
        return PpoLearner(policy, load_reward_model(inputs.reward).to(worker_rank().kind), config, text, pad_id)
    base, reference = (load_model(path).state_dict() for path in (inputs.base, inputs.sft))
    optimizer = merging_optimizer(policy, lambda model: direction_from(model, base, reference), config, stage.seed)
    return DpoLearner(policy, config, optimizer, pad_id)


def _improve(stage: Stage, loop: OnlineLoop, learner: Learner, name: str) -> OnlineResult:
    with stage.progress(loop.config.episodes + 1, "episodes") as progress:

        def on_episode(facts: PolicyMetrics) -> None:
            progress.advance(1, f"{name} reward {facts.reward:.3f} kl {facts.kl:.4f} pass {facts.pass_rate:.3f}")
            for figure in ("reward", "kl", "pass_rate", "characters"):
                stage.curve(f"{figure}.{name}", facts.episode, getattr(facts, figure))

        outcome = replace(loop, on_episode=on_episode).run(learner, stage.scratch / f"{name}.pt")
    for episode, reason in outcome.rejections.items():
        stage.warn(f"{name} episode {episode} was rolled back: {reason}")
    for episode, reason in outcome.skipped_updates.items():
        stage.warn(f"{name} episode {episode} taught nothing: {reason}")
    with (stage.out / f"rollouts.{name}.jsonl").open("w", encoding="utf-8") as stream:
        stream.writelines(json.dumps(sample, ensure_ascii=False) + "\n" for sample in outcome.samples)
    return outcome


def _report(stage: Stage, config: OnlineConfig, outcome: OnlineResult, before: PassRate, after: PassRate) -> None:
    best = outcome.best or outcome.policy_metrics[0]
    # A refreshed reference is no longer the start, so its divergence says nothing about it.
    kept_start = best.episode == 0 or (config.reference == "fixed" and best.kl == 0)
    stage.metric("kept_start", float(kept_start))
    if kept_start:
        stage.warn("the online stage kept the policy it started from: nothing was gained")
    stage.metric("reward.first", outcome.policy_metrics[0].reward)
    stage.metric("reward.final", best.reward)
    stage.metric("kl.final", best.kl)
    stage.metric("kl.highest", max(facts.kl for facts in outcome.policy_metrics))
    stage.metric("pass_rate", after.greedy)
    stage.metric("pass_rate.sampled", after.sampled)
    stage.metric("pass_rate.before", before.greedy)
    stage.metric("pass_rate.before_sampled", before.sampled)
    stage.metric("pass_rate.prompts", after.prompts)
    stage.metric("rollbacks", outcome.rollbacks)
    stage.metric("cut_share.first", outcome.truncated_shares[0])
    stage.metric("cut_share.final", outcome.truncated_shares[outcome.policy_metrics.index(best)])
    figures = {
        "before": asdict(before),
        "after": asdict(after),
        "best": asdict(best),
        "history": [asdict(facts) for facts in outcome.policy_metrics],
        "cut": outcome.truncated_shares,
        "learned": outcome.episode_metrics,
        "rollbacks": outcome.rejections,
    }
    (stage.out / "online.json").write_text(json.dumps(figures, indent=1), encoding="utf-8")
    lines = ["# online", "", "| episode | reward | KL | verified | characters |", "|---|---|---|---|---|"]
    lines += [
        f"| {f.episode} | {f.reward:.3f} | {f.kl:.4f} | {f.pass_rate:.3f} | {f.characters:.1f} |"
        for f in outcome.policy_metrics
    ]
    lines += ["", f"Kept: the policy at the start of episode {best.episode}.", ""]
    lines += [f"- episode {episode} rolled back: {reason}" for episode, reason in outcome.rejections.items()]
    (stage.out / "summary.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _report_twin(stage: Stage, outcome: OnlineResult, after: PassRate) -> None:
    best = outcome.best or outcome.policy_metrics[0]
    stage.metric("adamw.pass_rate", after.greedy)
    stage.metric("adamw.pass_rate.sampled", after.sampled)
    stage.metric("adamw.reward.final", best.reward)
    stage.metric("adamw.kl.final", best.kl)
    stage.metric("adamw.rollbacks", outcome.rollbacks)
    figures = {"after": asdict(after), "history": [asdict(facts) for facts in outcome.policy_metrics]}
    (stage.out / "adamw.json").write_text(json.dumps(figures, indent=1), encoding="utf-8")
