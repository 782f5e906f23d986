"""Online alignment with the merging optimizer, beside the same run with plain AdamW."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from qwenops.alignment.examples import pad_id_of
from qwenops.alignment.online.config import OnlineConfig
from qwenops.alignment.online.guard import Facts, Marks
from qwenops.alignment.online.learner import DpoLearner, Learner, merging_optimizer, plain_optimizer
from qwenops.alignment.online.loop import Loop, Outcome
from qwenops.alignment.online.ppo import PpoLearner, tokenize_demonstrations
from qwenops.alignment.online.rewards import build_reward
from qwenops.alignment.online.rollouts import Sampler
from qwenops.alignment.online.screening import guards_questions, solved_sometimes
from qwenops.alignment.pass_rate import PassRate, choose_questions, grade, likeliest_answers, measure_pass_rate
from qwenops.alignment.reward_model import load_reward_model
from qwenops.alignment.train import on_workers
from qwenops.contracts.checkpoint import read_facts
from qwenops.contracts.conversation import PROMPTS, Conversation, read_conversations
from qwenops.errors import ContractError
from qwenops.generation.engine import Sampling
from qwenops.model.checkpoints import load_model, load_tokenizer, moved, save_checkpoint
from qwenops.platform.stage.handle import Stage
from qwenops.training.online_merging import direction_from
from qwenops.training.parallel import place


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
    on_workers(stage, align, most_workers=1, config=config, inputs=inputs, rows=rows, prompts=prompts)


def align(
    config: OnlineConfig, inputs: Inputs, rows: Sequence[Conversation], prompts: Sequence[Conversation], stage: Stage
) -> None:
    """What the worker runs: improve the policy, measure, repeat with AdamW where that is asked for."""
    checkpoint = inputs.checkpoint
    tokenizer = load_tokenizer(checkpoint)
    loop = _build_loop(config, inputs, tokenizer, prompts, stage)
    questions = choose_questions(rows, config.measure, stage.seed)
    learner = _learner(config, inputs, tokenizer, rows, stage)
    before = measure_pass_rate(learner.policy, tokenizer, questions, config.measure, stage.seed)
    outcome = _improve(stage, loop, learner, "online")
    after = measure_pass_rate(learner.policy, tokenizer, questions, config.measure, stage.seed)
    facts = read_facts(checkpoint)
    save_checkpoint(
        learner.policy,
        tokenizer,
        stage.out,
        facts.context_length_tokens,
        facts.tokens_seen + outcome.tokens,
        checkpoint.name,
        kind="chat",
    )
    stage.records = len(outcome.learned)
    _report(stage, config, outcome, before, after)
    if config.compare_with == "adamw" and config.algorithm == "dpo":
        policy = moved(load_model(checkpoint), place().kind)
        twin = DpoLearner(policy, config, plain_optimizer(policy, config), pad_id_of(tokenizer))
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
) -> Loop:
    guarded = config.measure.model_copy(update={"prompts": config.guard.prompts})
    questions, others = guards_questions(prompts, guarded, stage.seed)

    source = build_reward(config.reward, load_reward_model(inputs.reward).to(place().kind), tokenizer)

    def measure(policy: PreTrainedModel) -> Marks:
        answers = likeliest_answers(policy, tokenizer, questions, guarded)
        return Marks([float(right) for right in grade(questions, answers)], source.rate(questions, answers))

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
        start = moved(load_model(inputs.checkpoint), place().kind)
        others = solved_sometimes(start, tokenizer, others, config, sampling)
        stage.metric("prompts.kept", len(others))
    return Loop(config, sampler, others, measure, stage.seed)


def _learner(
    config: OnlineConfig, inputs: Inputs, tokenizer: PreTrainedTokenizerBase, rows: Sequence[Conversation], stage: Stage
) -> Learner:
    policy, pad_id = moved(load_model(inputs.checkpoint), place().kind), pad_id_of(tokenizer)
    if config.algorithm == "ppo":
        text = tokenize_demonstrations(tokenizer, rows, config.max_length_tokens)
        return PpoLearner(policy, load_reward_model(inputs.reward).to(place().kind), config, text, pad_id)
    base, reference = (load_model(path).state_dict() for path in (inputs.base, inputs.sft))
    optimizer = merging_optimizer(policy, lambda model: direction_from(model, base, reference), config, stage.seed)
    return DpoLearner(policy, config, optimizer, pad_id)


def _improve(stage: Stage, loop: Loop, learner: Learner, name: str) -> Outcome:
    with stage.progress(loop.config.episodes + 1, "episodes") as progress:

        def on_episode(facts: Facts) -> None:
            progress.advance(1, f"{name} reward {facts.reward:.3f} kl {facts.kl:.4f} pass {facts.pass_rate:.3f}")
            for figure in ("reward", "kl", "pass_rate", "characters"):
                stage.curve(f"{figure}.{name}", facts.episode, getattr(facts, figure))

        watched = Loop(loop.config, loop.sampler, loop.prompts, loop.measure, loop.seed, on_episode)
        outcome = watched.run(learner, stage.scratch / f"{name}.pt")
    for episode, reason in outcome.verdicts.items():
        stage.warn(f"{name} episode {episode} was rolled back: {reason}")
    for episode, reason in outcome.idle.items():
        stage.warn(f"{name} episode {episode} taught nothing: {reason}")
    with (stage.out / f"rollouts.{name}.jsonl").open("w", encoding="utf-8") as stream:
        stream.writelines(json.dumps(sample, ensure_ascii=False) + "\n" for sample in outcome.samples)
    return outcome


def _report(stage: Stage, config: OnlineConfig, outcome: Outcome, before: PassRate, after: PassRate) -> None:
    best = outcome.best or outcome.history[0]
    # A refreshed reference is no longer the start, so its divergence says nothing about it.
    kept_start = best.episode == 0 or (config.reference == "fixed" and best.kl == 0)
    stage.metric("kept_start", float(kept_start))
    if kept_start:
        stage.warn("the online stage kept the policy it started from: nothing was gained")
    stage.metric("reward.first", outcome.history[0].reward)
    stage.metric("reward.final", best.reward)
    stage.metric("kl.final", best.kl)
    stage.metric("kl.highest", max(facts.kl for facts in outcome.history))
    stage.metric("pass_rate", after.greedy)
    stage.metric("pass_rate.sampled", after.sampled)
    stage.metric("pass_rate.before", before.greedy)
    stage.metric("pass_rate.before_sampled", before.sampled)
    stage.metric("pass_rate.prompts", after.prompts)
    stage.metric("rollbacks", outcome.rollbacks)
    stage.metric("cut_share.first", outcome.cut[0])
    stage.metric("cut_share.final", outcome.cut[outcome.history.index(best)])
    figures = {
        "before": asdict(before),
        "after": asdict(after),
        "best": asdict(best),
        "history": [asdict(facts) for facts in outcome.history],
        "cut": outcome.cut,
        "learned": outcome.learned,
        "rollbacks": outcome.verdicts,
    }
    (stage.out / "online.json").write_text(json.dumps(figures, indent=1), encoding="utf-8")
    lines = ["# online", "", "| episode | reward | KL | verified | characters |", "|---|---|---|---|---|"]
    lines += [
        f"| {f.episode} | {f.reward:.3f} | {f.kl:.4f} | {f.pass_rate:.3f} | {f.characters:.1f} |"
        for f in outcome.history
    ]
    lines += ["", f"Kept: the policy at the start of episode {best.episode}.", ""]
    lines += [f"- episode {episode} rolled back: {reason}" for episode, reason in outcome.verdicts.items()]
    (stage.out / "summary.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _report_twin(stage: Stage, outcome: Outcome, after: PassRate) -> None:
    best = outcome.best or outcome.history[0]
    stage.metric("adamw.pass_rate", after.greedy)
    stage.metric("adamw.pass_rate.sampled", after.sampled)
    stage.metric("adamw.reward.final", best.reward)
    stage.metric("adamw.kl.final", best.kl)
    stage.metric("adamw.rollbacks", outcome.rollbacks)
    figures = {"after": asdict(after), "history": [asdict(facts) for facts in outcome.history]}
    (stage.out / "adamw.json").write_text(json.dumps(figures, indent=1), encoding="utf-8")
