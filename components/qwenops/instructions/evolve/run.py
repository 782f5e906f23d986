"""Evolve instructions, then part them into demonstrations, prompts still to be answered, and held-out tasks."""

import json
import random
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from qwenops.contracts.conversation import PROMPTS, Conversation, read_conversations, write_conversations
from qwenops.instructions.cleaning import Cleaner
from qwenops.instructions.evolve.config import EvolveConfig
from qwenops.instructions.evolve.evolver import evolve_answered, evolve_task, find_flaw, llm_children
from qwenops.platform.engines import open_stage_engine
from qwenops.platform.stage.handle import Stage


def run(config: EvolveConfig, *, instructions: Path, stage: Stage) -> None:
    """Write `demonstrations.jsonl` (answered; train and held out), `prompts.jsonl` and `difficulty.json`."""
    rows = read_conversations(instructions)
    train = [row for row in rows if row.split == "train"]
    heldout = [row for row in rows if row.split == "heldout"]
    rng = random.Random(stage.seed)
    shuffled = rng.sample(train, len(train))
    parents = shuffled[: round(config.evolved_share * len(train))]
    evolved, unfinished = _evolve(parents, config, rng, stage)
    children, dropped = _filter(evolved, rows, config)
    evolved, _ = _evolve([row for row in heldout if row.verifier], config, rng, stage, rules_only=True)
    hard_heldout, dropped_heldout = _filter(evolved, rows, config)
    heldout += hard_heldout[: config.heldout_evolved]
    cleaner = Cleaner(config.decontamination, stage)
    children = cleaner.conversations(children)
    demonstrations, prompts = _part([*shuffled, *children], config, rng)
    write_conversations(stage.out, [*demonstrations, *heldout])
    write_conversations(stage.out, prompts, PROMPTS)
    _write_difficulty(train, [*train, *children], stage.out)
    stage.metric("rows.demonstrations", len(demonstrations))
    stage.metric("rows.prompts", len(prompts))
    stage.metric("rows.heldout", len(heldout))
    stage.metric("rows.evolved", len(children))
    stage.metric("complexity.before", _mean_tags(train))
    stage.metric("complexity.evolved", _mean_tags(children))
    if config.evolver == "rules":
        stage.warn("instructions were evolved by rules, not by a language model")
    kept = len(demonstrations) + len(prompts) + len(heldout)
    refused = dict(dropped + dropped_heldout + unfinished + cleaner.dropped)
    cleaner.report()
    surplus = max(len(hard_heldout) - config.heldout_evolved, 0)
    stage.count(read=kept + sum(refused.values()) + surplus, kept=kept, dropped={**refused, "not_needed": surplus})


def _evolve(
    parents: list[Conversation], config: EvolveConfig, rng: random.Random, stage: Stage, *, rules_only: bool = False
) -> tuple[list[Conversation], Counter[str]]:
    """Children by rules where an answer can be recomputed or kept; by the language model for the others, if asked.

    Also returns how many of the language model's were cut or lost.
    """
    children: list[Conversation] = []
    unfinished = Counter[str]()
    open_rows: list[Conversation] = []
    for row in parents:
        if row.verifier is not None:
            child = evolve_task(row, config.task_steps, rng)
        elif config.evolver == "rules" and row.is_answered:
            child = evolve_answered(row, rng)
        else:
            child = None
            open_rows += [row]
        children += [child] if child is not None else []
    if config.evolver == "llm" and open_rows and not rules_only:
        engine = open_stage_engine(config.engine, stage.scratch)
        worded, unfinished = llm_children(open_rows, engine, config.added_nodes, config.temperature, stage.seed)
        children += worded
    return children, unfinished


def _filter(
    children: list[Conversation], rows: list[Conversation], config: EvolveConfig
) -> tuple[list[Conversation], Counter[str]]:
    parents = {row.id: row for row in rows}
    heldout = frozenset(row.instruction for row in rows if row.split == "heldout")
    taken, kept, dropped = set(parents), list[Conversation](), Counter[str]()
    for child in children:
        flaw = find_flaw(child, parents[child.parent_id or ""], heldout, config.max_rouge_l)
        flaw = "repeated" if flaw is None and child.id in taken else flaw
        if flaw is None:
            taken.add(child.id)
            kept.append(child)
        else:
            dropped[flaw] += 1
    return kept, dropped


def _part(
    rows: list[Conversation], config: EvolveConfig, rng: random.Random
) -> tuple[list[Conversation], list[Conversation]]:
    """Demonstrations up to each source's number; every other row, its answer taken away, is a prompt."""
    tasks = sum(row.source == "verifiable" for row in rows)
    # What follows samples answers to tasks and is guarded by them, however few were selected.
    verifiable = min(config.verifiable_demonstrations, tasks // 2)
    room: Counter[str] = Counter()
    demonstrations, prompts = list[Conversation](), list[Conversation]()
    for row in rng.sample(rows, len(rows)):
        limit = verifiable if row.source == "verifiable" else config.demonstrations_per_source
        if row.is_answered and room[row.source] < limit:
            room[row.source] += 1
            demonstrations.append(row)
        else:
            prompts.append(replace(row, messages=row.prompt))
    return demonstrations, prompts


def _write_difficulty(before: list[Conversation], after: list[Conversation], out: Path) -> None:
    """Histograms of the number of tags before and after, for the spread of difficulty."""

    def histogram(rows: Iterable[Conversation]) -> dict[int, int]:
        return dict(sorted(Counter(len(row.tags) for row in rows).items()))

    plain = {"tags_before": histogram(before), "tags_after": histogram(after)}
    (out / "difficulty.json").write_text(json.dumps(plain, indent=1), encoding="utf-8")


def _mean_tags(rows: list[Conversation]) -> float:
    return sum(len(row.tags) for row in rows) / max(len(rows), 1)
