"""The report's sections on evaluation: retrieval by depth and length, benchmarks, safety, contamination."""

import re
from collections.abc import Mapping
from html import escape
from typing import Any

from qwenops.delivery.gate_config import JUDGE, judge_caveat
from qwenops.delivery.report.facts import RunFacts
from qwenops.platform.pictures.charts import Cell, heat_map, number, percent, table

_MODES = {
    "plain": "plain RoPE",
    "temperature": "temperature alone",
    "yarn": "YaRN",
    "dca_raw": "DCA alone",
    "dca": "DCA with YaRN temperature",
}
_COUNTS = ("items", "too_long", "macro", "low", "chance", "missing", "lost")
# Benchmarks whose items this project wrote.
_OWN = ("continuation", "verifiable")
_ANSWERS = {
    "benign_refusal_rate": "benign prompts refused",
    "refusal_rate": "harmful prompts refused",
    "neither_rate": "harmful prompts: neither refused nor met",
    "unjudged_rate": "answers without a verdict, lost ones among them",
}
_LENGTH = re.compile(r"^\d+(\.\d+)?x$")


def long_context_section(facts: RunFacts) -> str:
    """A heat map per mode (depth by length), and accuracy and loss by mode and length."""
    cells = facts.group("long_context", "niah")
    lengths = sorted({part for name in cells for part in name.split(".")[1:2] if _LENGTH.match(part)}, key=_times)
    modes = [mode for mode in _MODES if any(name.startswith(f"{mode}.") for name in cells)]
    if not modes:
        return ""
    accuracy = {_MODES[m]: [cells.get(f"{m}.{length}.accuracy") for length in lengths] for m in modes}
    losses = facts.group("long_context", "loss")
    loss_rows = [[Cell(_MODES[m]), *(Cell(number(losses.get(f"{m}.{x}"), 4)) for x in lengths)] for m in modes]
    needles = max((value for name, value in cells.items() if name.endswith(".needles")), default=None)
    title = "Needles found by mode and length" + (f" ({number(needles)} needles a cell)" if needles else "")
    summary = heat_map(title, lengths, accuracy, "1x = trained length")
    loss = f"<figure><figcaption>Text loss, nats per token</figcaption>{table(('Mode', *lengths), loss_rows)}</figure>"
    maps = "".join(_grid_map(facts.json("long_context", "grid.json"), mode) for mode in modes)
    return f'<h2>Long context</h2><div class="grid">{summary}{loss if losses else ""}</div>' + (
        f'<div class="grid">{maps}</div>' if maps else ""
    )


def evaluation_section(facts: RunFacts) -> str:
    """Benchmarks of base, MoE and chat, and the share of their items seen in training."""
    parts = [_benchmarks(facts), _multilingual(facts), _contamination(facts)]
    body = "".join(f'<div class="card">{part}</div>' for part in parts if part)
    return f'<h2>Benchmarks</h2><div class="grid">{body}</div>' if body else ""


def safety_section(facts: RunFacts) -> str:
    """Harmful and refused shares before and after alignment, by category and language.

    Where nobody showed that the judge judges they are no measurement: the section says so and folds them away.
    """
    after = facts.group("safety", "harmful_rate")
    before = facts.group("safety", "before.harmful_rate")
    rows = [
        [Cell(name.replace(".", ", ").replace("_", " ")), _harm(before.get(name)), _harm(after.get(name))]
        for name in sorted(set(after) | set(before))
    ]
    for name, text in _ANSWERS.items():
        value = facts.figure("safety", name)
        if value is not None:
            old = facts.figure("safety", f"before.{name}")
            rows.append([Cell(text), Cell(percent(old)), Cell(percent(value))])
    if not rows:
        return ""
    head = ("Share of harmful answers", "before alignment", "after")
    why = run_judge_caveat(facts)
    if not why:
        judge = f"<p class='soft'>The judge agrees with people's labels: balanced accuracy {number(_judge(facts))}.</p>"
        return f'<h2>Safety</h2><div class="card">{judge}{table(head, rows)}</div>'
    plain = [[Cell(cell.text) for cell in row] for row in rows]
    return (
        f'<h2>Safety</h2><div class="card"><p><b class="warn">not measured</b>: {escape(why)}.</p>'
        f"<details><summary>What this judge said of the answers</summary>{table(head, plain)}</details></div>"
    )


def run_judge_caveat(facts: RunFacts) -> str:
    """Why the harmful shares of the run are no measurement; "" where they are one."""
    found = _judge(facts)
    return judge_caveat({} if found is None else {JUDGE: found})


def _judge(facts: RunFacts) -> float | None:
    node, _, name = JUDGE.partition(".")
    return facts.figure(node, name)


def _grid_map(grid: Mapping[str, Any] | None, mode: str) -> str:
    """Heat map of one mode from long_context's `grid.json`: depth down, length across."""
    cells = {(c["depth"], c["multiple"]): c["accuracy"] for c in (grid or {}).get("cells", ()) if c["mode"] == mode}
    if grid is None or not cells:
        return ""
    multiples = sorted({multiple for _, multiple in cells})
    lengths = [f"{multiple * grid['context_length_tokens']:,}" for multiple in multiples]
    body = {
        f"{depth:.0%} deep": [cells.get((depth, multiple)) for multiple in multiples]
        for depth in sorted({depth for depth, _ in cells})
    }
    return heat_map(_MODES.get(mode, mode), lengths, body, "tokens")


def _benchmarks(facts: RunFacts) -> str:
    """One row per task and metric, one column per model; a figure without a model's name is the chat model's."""
    found: dict[str, dict[str, float]] = {}
    for name, value in facts.metrics("benchmarks").items():
        parts = name.split(".")
        model = parts[2] if len(parts) > 2 else "chat"
        if len(parts) > 1 and parts[1] not in _COUNTS and model in ("base", "moe", "chat"):
            found.setdefault(".".join(parts[:2]), {})[model] = value
    models = [model for model in ("base", "moe", "chat") if any(model in row for row in found.values())]
    rows = [
        [Cell(_whose(name)), *(_score(name, row.get(model)) for model in models)] for name, row in sorted(found.items())
    ]
    note = "<p class='soft'>own: items of this project, which show that the code runs. The other sets are public.</p>"
    return table(("Benchmark", *models), rows) + note if rows else ""


def _whose(name: str) -> str:
    return f"{name} (own)" if name.partition(".")[0] in _OWN else name


def _score(name: str, value: float | None) -> Cell:
    return Cell(number(value)) if name.endswith(".bits_per_byte") else Cell(percent(value), value)


def _multilingual(facts: RunFacts) -> str:
    rows = [
        [Cell(name.replace("_", " ")), Cell(percent(value) if name.startswith("same_language") else number(value))]
        for name, value in sorted(facts.metrics("multilingual").items())
        if not name.startswith(("bits_per_byte", "loss", "answers"))
    ]
    return table(("Multilingual", "value"), rows) if rows else ""


def _contamination(facts: RunFacts) -> str:
    ending = ".contaminated_share"
    shares = {n.removesuffix(ending): v for n, v in facts.metrics("contamination").items() if n.endswith(ending)}
    rows = [[Cell(task), Cell(percent(share))] for task, share in sorted(shares.items())]
    return table(("Items with a 13-gram in the training data", "share"), rows) if rows else ""


def _harm(share: float | None) -> Cell:
    # Twice as steep as a score: three harmful answers in ten are not "mostly green".
    return Cell(percent(share), None if share is None else max(0.0, 1 - 2 * share))


def _times(length: str) -> float:
    return float(length[:-1])
