"""The report: one self-contained HTML page per run, for a person who wants to know what came out.

Inline style and inline SVG only; it opens from a disk, an artifact store or the Kubeflow UI, on a phone or a desk.
"""

from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

from qwenops.delivery.report.facts import RunFacts
from qwenops.delivery.report.sections.cost import cost_section
from qwenops.delivery.report.sections.dag import AREAS, NODES, dag_picture
from qwenops.delivery.report.sections.data import data_section
from qwenops.delivery.report.sections.evaluation import (
    evaluation_section,
    long_context_section,
    run_judge_caveat,
    safety_section,
)
from qwenops.delivery.report.sections.training import alignment_section, pretraining_section
from qwenops.platform.pictures.charts import duration, number, percent
from qwenops.platform.pictures.style import STYLE


def render(record: Mapping[str, Any], artifacts: Mapping[str, Path], base: Path | None = None) -> str:
    """Draw the page.

    Args:
        record: The run record; stages may be missing or failed.
        artifacts: Node name to its published folder, for the nodes that have one.
        base: Folder the page will lie in; by default the run's folder, three above an artifact
            (`<run>/stages/<node>/<fingerprint>`).

    Returns:
        A complete HTML document.
    """
    folder = base or next((path.parents[2] for path in artifacts.values()), Path())
    facts = RunFacts(record, artifacts, folder)
    sections = (
        _header(facts),
        _failures(facts),
        _tiles(facts),
        _gate(facts),
        _dag(facts),
        data_section(facts),
        pretraining_section(facts),
        long_context_section(facts),
        alignment_section(facts),
        safety_section(facts),
        evaluation_section(facts),
        cost_section(facts),
        _warnings(facts),
        _footer(facts),
    )
    title = escape(f"{record.get('run_name', 'run')} - qwenops report")
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f'<meta name="color-scheme" content="light dark"><title>{title}</title><style>{STYLE}</style></head>'
        f"<body><main>{''.join(sections)}</main></body></html>\n"
    )


def _header(facts: RunFacts) -> str:
    record, model = facts.record, facts.record.get("model") or {}
    status = str(record.get("status", ""))
    chips = [_chip(f"run {status}", "good" if status == "succeeded" else "bad")]
    gate = model.get("gate")
    if gate and "register" in facts.stages:
        chips.append(_chip("gate passed", "good") if gate["passed"] else _chip("gate not passed", "warn"))
    if model.get("alias"):
        chips.append(_chip(f"alias {model['alias']}", "soft"))
    about = [f"recipe {record['recipe']}"] if record.get("recipe") else []
    about += [str(record["started_at"])] if record.get("started_at") else []
    about += [f"code {record['code_version']}"] if record.get("code_version") else []
    about += [f"fingerprint {record['fingerprint'][:12]}"] if record.get("fingerprint") else []
    name = escape(str(record.get("run_name", "run")))
    return f"<h1>{name}</h1><p class='soft'>{escape(' - '.join(about))}</p><p>{''.join(chips)}</p>{_talk(facts, model)}"


def _talk(facts: RunFacts, model: Mapping[str, Any]) -> str:
    if not model.get("path"):
        return ""
    uri = model.get("mlflow_uri")
    entry = f"<p class='soft'>In the model registry: <code>{escape(uri)}</code></p>" if uri else ""
    command = f"<pre><code>qwenops chat {escape(_shown(model['path']))}</code></pre>"
    heard = (facts.json("export", "export.json") or {}).get("quickstart")
    sample = (
        f"<details><summary>What it answered when it was exported</summary>"
        f"<pre><code>{escape(heard['prompt'] + heard['response'])}</code></pre></details>"
        if heard
        else ""
    )
    return f"<div class='card'><b>Talk to it</b>{command}{sample}{entry}</div>"


def _shown(path: str) -> str:
    """The model's path; relative to where the run was started when it lies below."""
    here = f"{Path.cwd()}/"
    return path.removeprefix(here)


def _chip(text: str, kind: str) -> str:
    return f'<span class="chip {kind}">{escape(text)}</span>'


def _failures(facts: RunFacts) -> str:
    errors = {node: stage.get("error") or {} for node, stage in facts.stages.items() if stage.get("status") == "failed"}
    first = facts.record.get("error") or {}
    if first and first["task"] not in errors:
        errors = {first["task"] or "run": first, **errors}
    return "".join(_failure(task, error) for task, error in errors.items())


def _failure(task: str, error: Mapping[str, Any]) -> str:
    message = escape(str(error.get("message", "it ended without saying why")))
    family = escape(str(error.get("family", "")))
    return (
        f'<div class="card"><b class="bad">{escape(task)} failed</b> <small>{family}</small><pre>{message}</pre></div>'
    )


def _tiles(facts: RunFacts) -> str:
    total = facts.record.get("seconds")
    found = (
        (percent(facts.figure("online", "pass_rate")), "of our held-out tasks answered right by the chat model"),
        (
            percent(facts.figure("long_context", "niah.dca.8x.accuracy")),
            "of our needles found at 8x the trained length (DCA)",
        ),
        (number(facts.figure("extend", "loss.final")), "text loss after long-context training"),
        (percent(facts.figure("reward", "pair_accuracy")), "held-out pairs the reward model orders right"),
        (_harmful(facts), "harmful answers after alignment"),
        (number(facts.figure("pretrain", "parameters.total")), "parameters"),
        (duration(total) if total else "-", _overhead(facts)),
    )
    tiles = "".join(f'<div class="tile"><b>{a}</b><span>{escape(b)}</span></div>' for a, b in found if a != "-")
    return f'<div class="tiles">{tiles}</div>'


def _harmful(facts: RunFacts) -> str:
    """Over all harmful prompts; the cells repeat each answer in several totals, so their mean would be none."""
    share = facts.figure("safety", "harmful_rate.all.all")
    return "not measured" if share is not None and run_judge_caveat(facts) else percent(share)


def _overhead(facts: RunFacts) -> str:
    overhead = facts.record.get("overhead_seconds")
    return "whole run" if overhead is None else f"whole run, {duration(overhead)} of it between stages"


def _gate(facts: RunFacts) -> str:
    record = facts.json("register", "register.json") or {}
    findings = record.get("findings")
    if not findings:
        return ""
    lines = "".join(
        f"<li><b class='{'good' if f['passed'] else 'bad'}'>{'holds' if f['passed'] else 'fails'}</b> "
        f"{escape(f['sentence'])}</li>"
        for f in sorted(findings, key=lambda f: bool(f["passed"]))
    )
    lines += "".join(
        f"<li><b class='soft'>not gated</b> by the strict policy: <code>{escape(e['figure'])}</code>, "
        f"because {escape(e['why'])}</li>"
        for e in record.get("not_gated", ())
    )
    return f"<h2>Gate</h2><div class='card'><ul class='plain'>{lines}</ul></div>"


def _dag(facts: RunFacts) -> str:
    status = {node: str(stage.get("status", "")) for node, stage in facts.stages.items()}
    seconds = {node: float(stage.get("seconds") or 0.0) for node, stage in facts.stages.items()}
    by_area = ", ".join(
        f"{area} {duration(total)}"
        for area, nodes in AREAS.items()
        if (total := sum(seconds.get(node, 0.0) for node in nodes))
    )
    picture = dag_picture(status, seconds, facts.edges)
    return f"<h2>Stages</h2><figure>{picture}<p class='soft'>{escape(by_area)}</p></figure>"


def _warnings(facts: RunFacts) -> str:
    lines = "".join(
        f"<li><b>{escape(node)}</b>: {escape(sentence)}</li>"
        for node in NODES
        for sentence in facts.stages.get(node, {}).get("warnings", ())
    )
    return f"<h2>Warnings</h2><div class='card'><ul class='plain'>{lines}</ul></div>" if lines else ""


def _footer(facts: RunFacts) -> str:
    summaries = "".join(
        f' <a href="{escape(facts.link(path))}">{escape(node)}</a>'
        for node in NODES
        for path in facts.files(node, "summary.md")
    )
    tracking = "Curves and lineage: <code>make ui</code> opens MLflow on this machine."
    files = f"<p>Summaries:{summaries}</p>" if summaries else ""
    return f"<footer><p>{tracking}</p>{files}</footer>"
