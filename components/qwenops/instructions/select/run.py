"""Choose the training instructions by four criteria; held-out rows pass through untouched."""

import json
from collections import Counter
from dataclasses import asdict
from pathlib import Path

from qwenops.contracts.conversation import Conversation, read_conversations, write_conversations
from qwenops.errors import ContractError
from qwenops.instructions.select.config import SelectConfig
from qwenops.instructions.select.sampling import mean_complexity, select_diverse, select_random, tag_coverage
from qwenops.instructions.select.scores import Scores, score_instructions
from qwenops.platform.stage.handle import Stage


def run(config: SelectConfig, *, instructions: Path, stage: Stage) -> None:
    """Write the chosen rows (`demonstrations.jsonl`), all scores (`scores.jsonl`) and `summary.json`."""
    pool = read_conversations(instructions, "train")
    heldout = read_conversations(instructions, "heldout")
    if not pool:
        raise ContractError("no training instructions to choose from", expected="at least one", found=instructions)
    scores = score_instructions(pool, config)
    complete = [i for i in range(len(pool)) if scores[i].completeness >= config.min_completeness]
    chosen = _choose([pool[i] for i in complete], [scores[i] for i in complete], config)
    # The control draws as many rows from each source, so that only the choice within a source is compared.
    sizes = Counter(row.source for row in chosen)
    random_set = [
        row
        for source, size in sorted(sizes.items())
        for row in select_random([row for row in pool if row.source == source], size, stage.seed)
    ]
    write_conversations(stage.out, [*chosen, *heldout])
    _write_scores(pool, scores, {row.id for row in chosen}, stage.out)
    for name, rows in (("selected", chosen), ("random", random_set)):
        stage.metric(f"coverage.{name}", tag_coverage(rows, pool))
        stage.metric(f"complexity.{name}", mean_complexity(rows))
    stage.metric("complexity.pool", mean_complexity(pool))
    for source, number in sorted(sizes.items()):
        stage.metric(f"rows.{source}", number)
    kept, incomplete = len(chosen) + len(heldout), len(pool) - len(complete)
    stage.count(
        read=len(pool) + len(heldout),
        kept=kept,
        dropped={"incomplete": incomplete, "not_selected": len(complete) - len(chosen)},
    )


def _choose(rows: list[Conversation], scores: list[Scores], config: SelectConfig) -> list[Conversation]:
    """Diverse sampling in each source up to its quota; sources without one share what is left of `size`."""
    quotas = {quota.source: quota.rows for quota in config.quotas}
    chosen: list[Conversation] = []
    for source in sorted({row.source for row in rows}, key=lambda name: (name not in quotas, name)):
        places = [i for i, row in enumerate(rows) if row.source == source]
        room = min(quotas.get(source, config.size), config.size - len(chosen))
        chosen += select_diverse([rows[i] for i in places], [scores[i] for i in places], room)
    return chosen


def _write_scores(pool: list[Conversation], scores: list[Scores], chosen: set[str], out: Path) -> None:
    with (out / "scores.jsonl").open("w", encoding="utf-8") as stream:
        for row, score in zip(pool, scores, strict=True):
            stream.write(json.dumps({"id": row.id, "chosen": row.id in chosen, **asdict(score)}) + "\n")
    faults = Counter(fault for score in scores for fault in score.faults)
    summary = {"pool": len(pool), "chosen": len(chosen), "faults": dict(faults)}
    (out / "summary.json").write_text(json.dumps(summary, indent=1), encoding="utf-8")
