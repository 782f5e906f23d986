"""The report's section on data: what came in, what was dropped and why, and the gates it passed."""

from html import escape

from qwenops.delivery.report.facts import RunFacts
from qwenops.delivery.report.sections.dag import NODES
from qwenops.delivery.report.sections.funnel import FUNNEL, funnel_section
from qwenops.platform.pictures.charts import Cell, bars, number, size, table

_INSTRUCTIONS = ("ontology", "select", "evolve", "sft_seed", "rank", "synthesize", "sft", "reward", "dpo", "online")
_MOST_BARS = 14


def data_section(facts: RunFacts) -> str:
    """Funnel, languages and domains, tokens, gates."""
    funnels = {node: facts.json(node, "funnel.json") for node in FUNNEL}
    last = next((funnels[node] for node in reversed(FUNNEL) if funnels[node]), None)
    grids = []
    if last:
        grids = [
            _shares("Languages after cleaning: text, documents", last.get("by_language", {})),
            _shares("Domains after cleaning: text, documents", last.get("by_domain", {})),
        ]
    shares = f'<div class="grid">{"".join(grids)}{_mixture(facts)}</div>'
    parts = [_funnel(facts), shares, funnel_section(facts), _checks(facts)]
    body = "".join(part for part in parts if part)
    return f"<h2>Data</h2>{body}" if any((last, _funnel(facts), _checks(facts))) else ""


def _funnel(facts: RunFacts) -> str:
    rows = []
    for node in (*FUNNEL, *_INSTRUCTIONS):
        counts = facts.manifests[node].counts if node in facts.manifests else {}
        if counts:
            reasons = sorted(counts["dropped"].items(), key=lambda item: -item[1])
            words = ", ".join(f"{reason.replace('_', ' ')} {number(n)}" for reason, n in reasons[:4] if n)
            share = counts["kept"] / counts["read"] if counts["read"] else None
            rows.append((node, share or 0.0, f"{number(counts['kept'])} of {number(counts['read'])}", words))
    if not rows:
        return ""
    lines = "".join(
        f'<div class="bar"><span>{escape(node)}</span><i style="--w:{100 * share:.1f}%"></i><b>{text}</b></div>'
        + (f'<small style="display:block;margin:-2px 0 4px">dropped: {escape(words)}</small>' if words else "")
        for node, share, text, words in rows
    )
    return f"<figure><figcaption>Funnel: records kept of those read</figcaption>{lines}</figure>"


def _shares(title: str, groups: dict[str, dict[str, int]]) -> str:
    ordered = sorted(groups.items(), key=lambda item: -item[1]["bytes"])
    rows = [(name, float(g["bytes"]), f"{size(g['bytes'])}B, {number(g['documents'])}") for name, g in ordered]
    return bars(title, rows[:_MOST_BARS])


def _mixture(facts: RunFacts) -> str:
    chosen = {k: v for k, v in facts.group("mixture", "mixture").items() if "." not in k and k != "spearman"}
    if not chosen:
        return ""
    rows = [(name, value, f"{value:.0%}") for name, value in sorted(chosen.items(), key=lambda item: -item[1])]
    return bars("Token share the mixture search chose", rows, most=1.0)


def _checks(facts: RunFacts) -> str:
    """Figures of the cleaning stages, and the Great Expectations pages."""
    wanted = (
        ("dedup", "planted.recall", "planted near-duplicates found"),
        ("dedup", "planted.precision", "found pairs that are near-duplicates"),
        ("decontaminate", "planted.removed", "planted evaluation items removed"),
        ("ingest", "language.accuracy", "language id against the declared language"),
        ("quality", "classifier.auc", "quality classifier, area under the curve"),
        ("tokenizer", "vocabulary", "vocabulary"),
        ("mixture", "mixture.spearman", "mixture regression, rank correlation on held-out proxies"),
    )
    found = [(node, text, facts.figure(node, name)) for node, name, text in wanted]
    rows = [[Cell(f"{node}: {text}"), Cell(number(value))] for node, text, value in found if value is not None]
    grid = f'<div class="card">{table(("Check", "value"), rows)}</div>' if rows else ""
    docs = [
        f'<li><a href="{escape(facts.link(path))}">{escape(node)}: {escape(path.stem)}</a></li>'
        for node in NODES
        for path in facts.files(node, "gate/*.html")
    ]
    gates = (
        f'<div class="card"><b>Data Docs</b> <small>Great Expectations, one page per gate</small>'
        f'<ul class="plain">{"".join(docs)}</ul></div>'
        if docs
        else ""
    )
    return f'<div class="grid">{grid}{gates}</div>' if grid or gates else ""
