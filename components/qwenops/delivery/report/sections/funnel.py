"""The funnel in full: what each data stage dropped and why, with examples; what was left of a source or a language.

A stage knows the reasons of what it dropped; what it dropped of a source or a language is the difference between two
stages. Tokens are the bytes over the tokenizer's measured compression, since documents are counted before they are
tokens.
"""

import json
from collections.abc import Mapping
from html import escape
from typing import Any

from qwenops.delivery.report.facts import RunFacts
from qwenops.platform.pictures.charts import Cell, number, percent, size, table

FUNNEL = ("collect", "ingest", "quality", "dedup", "decontaminate")
# Stages that hold documents; collect holds pages, whose bytes are markup.
_DOCUMENTS = FUNNEL[1:]
_MOST_GROUPS = 40
_EXAMPLES, _EXAMPLE_CHARACTERS = 3, 240
# Nobody wants to meet these on a page that is passed around; the stage's own file has them.
_NOT_SHOWN = ("offensive",)

Groups = Mapping[str, Mapping[str, int]]


def funnel_section(facts: RunFacts) -> str:
    """Reasons with examples, and documents, text and tokens by source and by language."""
    funnels = {node: funnel for node in FUNNEL if (funnel := facts.json(node, "funnel.json"))}
    if not funnels:
        return ""
    rates = facts.group("tokenizer", "bytes_per_token")
    body = [_reasons(facts, funnels), _sets(facts)]
    body += [
        _groups(title, key, funnels, rates) for title, key in (("Source", "by_source"), ("Language", "by_language"))
    ]
    return (
        '<details class="card"><summary>Funnel in full: reasons with examples, sources, languages</summary>'
        f"{''.join(body)}</details>"
    )


def _reasons(facts: RunFacts, funnels: Mapping[str, Any]) -> str:
    rows: list[list[Cell]] = []
    shown: list[str] = []
    for node, funnel in funnels.items():
        lost = funnel.get("dropped_bytes", {})
        examples = _examples(facts, node)
        for reason, count in sorted(funnel["dropped"].items(), key=lambda item: -item[1]):
            share = count / funnel["read"] if funnel["read"] else None
            text = f"{size(lost[reason])}B" if reason in lost else "-"
            rows.append([Cell(f"{node}: {reason}"), Cell(number(count)), Cell(percent(share)), Cell(text)])
            if reason in examples:
                lines = "".join(f"<pre><code>{escape(example)}</code></pre>" for example in examples[reason])
                shown.append(f"<details><summary>{escape(f'{node}: {reason}')}</summary>{lines}</details>")
    if not rows:
        return ""
    head = ("Dropped by reason", "records", "of those read", "text")
    return table(head, rows) + ("<p>Examples, cut:</p>" + "".join(shown) if shown else "")


def _examples(facts: RunFacts, node: str) -> dict[str, list[str]]:
    """A few dropped texts of each reason, or the address of what was not read as text; the sample may be missing."""
    found: dict[str, list[str]] = {}
    for path in facts.files(node, "dropped_sample.jsonl"):
        for line in path.read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            some = found.setdefault(row["reason"], [])
            shown = row["text"].strip() or row.get("url", "")
            if len(some) < _EXAMPLES and shown and row["reason"] not in _NOT_SHOWN:
                some.append(shown[:_EXAMPLE_CHARACTERS])
    return {reason: texts for reason, texts in found.items() if texts}


def _sets(facts: RunFacts) -> str:
    """The strict and the relaxed set, which quality cuts from the same scores."""
    found = facts.json("quality", "quality.json") or {}
    if "bytes" not in found:
        return ""
    rows = [
        [Cell(name), Cell(number(found["documents"][name])), Cell(f"{size(found['bytes'][name])}B")]
        for name in found["documents"]
    ]
    masked = ", ".join(f"{kind} {number(count)}" for kind, count in found.get("pii", {}).items())
    note = f"<p>Personal data masked: {escape(masked)}</p>" if masked else ""
    return table(("Set from the same scores", "documents", "text"), rows) + note


def _groups(title: str, key: str, funnels: Mapping[str, Any], rates: Mapping[str, float]) -> str:
    """Documents, bytes and tokens of each group after each stage that holds documents."""
    nodes = [node for node in _DOCUMENTS if key in funnels.get(node, {})]
    if not nodes:
        return ""
    first, last = (funnels[node][key] for node in (nodes[0], nodes[-1]))
    names = sorted(first, key=lambda name: -first[name]["bytes"])[:_MOST_GROUPS]
    rows = [
        [Cell(name or "unknown")]
        + [Cell(_documents(funnels[node][key], name)) for node in nodes]
        + [Cell(percent(_share(first, last, name))), Cell(_tokens(last, name, rates if key == "by_language" else {}))]
        for name in names
    ]
    more = f"<p>{number(len(first) - len(names))} smaller ones are left out</p>" if len(first) > len(names) else ""
    head = (f"{title}: documents, text after", *nodes, "text kept since", "tokens")
    return table(head, rows) + more


def _documents(groups: Groups, name: str) -> str:
    group = groups.get(name, {"documents": 0, "bytes": 0})
    return f"{number(group['documents'])}, {size(group['bytes'])}B"


def _share(first: Groups, last: Groups, name: str) -> float | None:
    before = first[name]["bytes"]
    return last.get(name, {"bytes": 0})["bytes"] / before if before else None


def _tokens(last: Groups, name: str, rates: Mapping[str, float]) -> str:
    rate = rates.get(name)
    return f"about {size(last[name]['bytes'] / rate)}" if rate and name in last else "-"
