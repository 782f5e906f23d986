"""The report's sections on pre-training and post-training: curves, languages, experts, gains by stage."""

from html import escape

from qwenops.delivery.report.facts import Points, RunFacts
from qwenops.platform.pictures.charts import Cell, Series, line_chart, number, percent, table

_PRETRAINING = ("pretrain", "extend", "upcycle")
_ALIGNMENT = ("sft_seed", "sft", "reward", "dpo", "online")
_TITLES = {
    "pretrain": "Pre-training",
    "extend": "Long-context training",
    "upcycle": "Mixture of experts against dense",
    "sft_seed": "First fine-tuning",
    "sft": "Fine-tuning",
    "reward": "Reward model",
    "dpo": "DPO",
    "online": "Online stage",
}
_ON_DOMAINS = ("pretrain", "extend")
_OF_A_WHOLE_STEP = {"loss", "loss.needles"}
_CONTROLS = ("control", "dense", "adamw")


def pretraining_section(facts: RunFacts) -> str:
    """Loss curves, what the longer context brought, bits per byte, needles, the MoE comparison."""
    curves = "".join(_loss_chart(facts, node) for node in _PRETRAINING) + _positions(facts)
    grids = "".join((_bits(facts), _totals(facts), _document_lengths(facts), _experts(facts)))
    if not curves and not grids:
        return ""
    return f'<h2>Pre-training</h2><div class="grid">{curves}</div><div class="grid">{grids}</div>'


def alignment_section(facts: RunFacts) -> str:
    """Gains by stage, losses, reward and divergence."""
    gains = _gains(facts)
    losses = "".join(_loss_chart(facts, node) for node in _ALIGNMENT)
    others = "".join(_other_charts(facts, node) for node in ("reward", "dpo", "online"))
    side = "".join((_instructions(facts), _online(facts), _unfinished(facts)))
    body = "".join(f'<div class="grid">{part}</div>' for part in (side, others) if part)
    more = f'<details class="card"><summary>Loss curves of all alignment stages</summary>{_grid(losses)}</details>'
    if not gains and not body and not losses:
        return ""
    return f"<h2>Post-training</h2>{gains}{body}{more if losses else ''}"


def curve_series(curves: dict[str, Points], kinds: tuple[str, ...]) -> list[Series]:
    """Series of the curves named `<kind>` or `<kind>.<which>`; controls are dashed, the main one comes first."""
    chosen = {name: points for name, points in curves.items() if name.split(".", 1)[0] in kinds}
    series = [
        Series(name.split(".", 1)[-1].replace("_", " "), points, any(word in name for word in _CONTROLS))
        for name, points in chosen.items()
    ]
    return sorted(series, key=lambda s: s.dashed)


def _grid(parts: str) -> str:
    return f'<div class="grid">{parts}</div>'


def _loss_chart(facts: RunFacts, node: str) -> str:
    """The stage's losses; those of the text's domains, which are many and noisy, in a chart of their own."""
    curves = {name: points for name, points in facts.curves(node).items() if name.split(".", 1)[0] == "loss"}
    domains = curves.keys() - _OF_A_WHOLE_STEP if node in _ON_DOMAINS else set()
    charts = {_TITLES[node]: curves.keys() - domains, f"{_TITLES[node]}, by domain": domains}
    return "".join(
        line_chart(
            title, curve_series({n: curves[n] for n in sorted(names)}, ("loss",)), "step", "loss, nats per token"
        )
        for title, names in charts.items()
    )


def _positions(facts: RunFacts) -> str:
    """Held-out loss by place in the row: what extension brought beyond the length trained before."""
    names = {"before": "before", "first": "new base", "final": "after"}
    curves = facts.curves("extend")
    series = [
        Series(text, curves[f"position_loss.{name}"], dashed=name != "final")
        for name, text in names.items()
        if f"position_loss.{name}" in curves
    ]
    return line_chart("Extension, held-out loss by place in the row", series, "token of the row", "nats per token")


def _document_lengths(facts: RunFacts) -> str:
    lengths = facts.json("extend", "document_lengths.json")
    if not lengths:
        return ""
    corpus, trained = lengths["corpus"], lengths["trained"]
    rows = [
        [Cell(f"{name} tokens"), *(Cell(percent(shares[name])) for shares in (corpus, trained))]
        for name in corpus
        if corpus[name] or trained[name]
    ]
    return f'<div class="card">{table(("Length of the documents", "corpus", "extension"), rows)}</div>'


def _bits(facts: RunFacts) -> str:
    columns = [node for node in ("pretrain", "extend") if facts.group(node, "bits_per_byte")]
    chat = facts.group("multilingual", "bits_per_byte")
    languages = sorted({code for node in columns for code in facts.group(node, "bits_per_byte")})
    if not languages:
        return ""
    rows = [
        [Cell(code), *(Cell(number(facts.group(node, "bits_per_byte").get(code))) for node in columns)]
        + ([Cell(number(chat.get(code)))] if chat else [])
        for code in languages
    ]
    head = ("Bits per byte, held out", *columns, *(("chat",) if chat else ()))
    return f'<div class="card">{table(head, rows)}</div>'


def _totals(facts: RunFacts) -> str:
    wanted = (
        ("loss.first", "loss, first step"),
        ("loss.final", "loss, end"),
        ("needle.accuracy", "needle accuracy"),
        ("needle.count", "needles"),
        ("tokens_per_second", "tokens per second"),
        ("parameters.total", "parameters"),
    )
    nodes = [node for node in ("pretrain", "extend") if facts.metrics(node)]
    rows = [
        [Cell(text), *(Cell(number(facts.figure(node, name))) for node in nodes)]
        for name, text in wanted
        if any(facts.figure(node, name) is not None for node in nodes)
    ]
    return f'<div class="card">{table(("Figure", *nodes), rows)}</div>' if rows else ""


def _experts(facts: RunFacts) -> str:
    names = (
        ("loss.moe.first", "MoE loss after upcycling"),
        ("loss.moe", "MoE loss, end"),
        ("loss.dense", "dense, same tokens"),
        ("experts.dead", "dead experts"),
        ("parameters.total", "parameters"),
        ("parameters.active", "active parameters"),
    )
    rows = [
        [Cell(text), Cell(number(facts.figure("upcycle", name), 4))]
        for name, text in names
        if facts.figure("upcycle", name) is not None
    ]
    return f'<div class="card">{table(("Mixture of experts", "value"), rows)}</div>' if rows else ""


def _gains(facts: RunFacts) -> str:
    """Pass rates from the first fine-tuning to the online stage, each beside its control."""
    rows = []
    base = facts.figure("sft_seed", "pass_rate.before")
    if base is not None:
        rows.append(_gain_row("base", base, None, None))
    for node in ("sft_seed", "sft", "dpo", "online"):
        greedy = facts.figure(node, "pass_rate")
        if greedy is not None:
            control = facts.figure(node, "control.pass_rate")
            control = facts.figure(node, "adamw.pass_rate") if node == "online" else control
            rows.append(_gain_row(node, greedy, facts.figure(node, "pass_rate.sampled"), control))
    if not rows:
        return ""
    counts = [facts.figure(node, "pass_rate.prompts") for node in _ALIGNMENT]
    prompts = next((count for count in counts if count), None)
    note = f"{number(prompts)} held-out prompts. " if prompts else ""
    return (
        f"<figure><figcaption>Verified answers by stage <small>{note}The dashed mark is the control: same steps on the "
        f"old data (sft, dpo), plain AdamW (online).</small></figcaption>{''.join(rows)}</figure>"
    )


def _gain_row(node: str, greedy: float, sampled: float | None, control: float | None) -> str:
    mark = f'<u style="left:{100 * control:.1f}%"></u>' if control is not None else ""
    texts = [f"sampled {percent(sampled)}"] if sampled is not None else []
    texts += [f"control {percent(control)}"] if control is not None else []
    return (
        f'<div class="gain"><span>{escape(node)}</span><div><i style="width:{100 * greedy:.1f}%"></i>{mark}</div>'
        f"<b>{percent(greedy)}</b><small>{', '.join(texts)}</small></div>"
    )


def _other_charts(facts: RunFacts, node: str) -> str:
    curves = facts.curves(node)
    kinds = sorted({name.split(".", 1)[0] for name in curves} - {"loss", "learning_rate", "gradient_norm"})
    return "".join(
        line_chart(f"{_TITLES[node]}: {kind.replace('_', ' ')}", curve_series(curves, (kind,)), "step", "")
        for kind in kinds
    )


def _instructions(facts: RunFacts) -> str:
    rows = []
    for node in ("ontology", "select", "evolve", "rank", "synthesize"):
        for name, value in facts.metrics(node).items():
            if name.startswith("answers."):
                continue
            shown = percent(value) if name.startswith(("accepted", "coverage")) else number(value)
            rows.append([Cell(f"{node}: {name.replace('_', ' ')}"), Cell(shown)])
    return f'<div class="card">{table(("Instructions and preferences", "value"), rows)}</div>' if rows else ""


def _online(facts: RunFacts) -> str:
    names = (
        ("reward", "pair_accuracy", "reward model, held-out pairs ordered right"),
        ("online", "reward.first", "mean reward, first episode"),
        ("online", "reward.final", "mean reward, last episode"),
        ("online", "adamw.reward.final", "mean reward with plain AdamW"),
        ("online", "kl.final", "divergence from the start, nats per token"),
        ("online", "rollbacks", "times the guard went back"),
    )
    rows = [
        [Cell(text), Cell(number(facts.figure(node, name)))]
        for node, name, text in names
        if facts.figure(node, name) is not None
    ]
    kept = (
        "<p><b class='warn'>The online stage kept the policy it started from</b>: nothing was gained, and what follows "
        "is the model of DPO.</p>"
        if facts.figure("online", "kept_start")
        else ""
    )
    return f'<div class="card">{kept}{table(("Rewards", "value"), rows)}</div>' if rows else ""


def _unfinished(facts: RunFacts) -> str:
    """Answers of models that were cut at the token limit, or that an endpoint lost."""
    rows = [
        [Cell(node), *(Cell(number(facts.figure(node, f"answers.{which}"))) for which in ("all", "cut", "lost"))]
        for node in ("rank", "synthesize", "benchmarks", "multilingual")
        if facts.figure(node, "answers.lost") is not None
    ]
    rows += [
        [Cell(f"online, {text}"), Cell("-"), Cell(percent(share)), Cell("-")]
        for name, text in (("first", "first episode"), ("final", "kept policy"))
        if (share := facts.figure("online", f"cut_share.{name}")) is not None
    ]
    head = ("Answers that did not end", "sampled", "cut at the limit", "lost")
    return f'<div class="card">{table(head, rows)}</div>' if rows else ""
