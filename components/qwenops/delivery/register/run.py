"""Judge the model by the gate, register it in MLflow, and move its aliases."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from qwenops.contracts.manifest import Manifest, read_manifest
from qwenops.delivery.register.config import RegisterConfig
from qwenops.delivery.register.gate import Verdict, compared, judge
from qwenops.platform.mlflow import registry
from qwenops.platform.stage.handle import Stage
from qwenops.platform.storage import addresses
from qwenops.recipe.codec import fingerprint

RECORD = "register.json"
_FIGURES_SHOWN = 80


@dataclass(frozen=True)
class Entry:
    """Where the model is now known: the run record's `model`.

    Attributes:
        path: The exported folder.
        mlflow_uri: For example `models:/qwenops-chat/3`; empty without tracking.
        alias: `champion`, `candidate`, or None without tracking.
    """

    path: str
    mlflow_uri: str
    alias: str | None


def run(config: RegisterConfig, *, model: Path, stage: Stage, **evaluations: Path) -> None:
    """Register `model` with the verdict that the figures of `evaluations` earn.

    A failed gate is a result, not an error: the model is registered as `candidate` and the record says why it
    went no further.

    Args:
        config: Rules, exceptions and the name.
        model: The exported folder.
        stage: Where to write and what to report to.
        evaluations: Node name to its published artifact; the nodes that the rules name.
    """
    manifests = {"export": read_manifest(model)} | {name: read_manifest(path) for name, path in evaluations.items()}
    figures = {f"{node}.{name}": value for node, m in manifests.items() for name, value in m.metrics.items()}
    entry, verdict = _register(config, model, stage, manifests, figures)
    record = {
        "passed": verdict.passed,
        "reasons": verdict.sentences,
        "findings": [
            {"passed": f.passed, "behind": f.behind, "sentence": f.sentence, **f.rule.model_dump(mode="json")}
            for f in verdict.findings
        ],
        "not_gated": [e.model_dump(mode="json") for e in config.not_gated],
        "model": asdict(entry),
        "mlflow_uri": entry.mlflow_uri,
        "alias": entry.alias,
    }
    (stage.out / RECORD).write_text(json.dumps(record, indent=1, ensure_ascii=False), encoding="utf-8")
    (stage.out / "summary.md").write_text(_summary(config, verdict, entry), encoding="utf-8")
    stage.metric("gate.passed", float(verdict.passed))
    stage.records = len(verdict.findings)
    for finding in verdict.findings:
        if not finding.passed:
            stage.warn(f"gate: {finding.sentence}")


def _register(
    config: RegisterConfig, model: Path, stage: Stage, manifests: Mapping[str, Manifest], figures: Mapping[str, float]
) -> tuple[Entry, Verdict]:
    uri = stage.context.tracking_uri
    if not uri:
        return Entry(str(model), "", None), judge(config, figures)
    address = addresses.files_address(model, manifests["export"].artifact_id, stage.context)
    source, run_id = registry.publish(uri, model, address, stage.context.parent_run_id)
    with registry.registration_turn(
        uri, config.model_name, source, run_id=run_id, figures=compared(config, figures), tags=_tags(manifests)
    ) as turn:
        verdict = judge(config, figures, turn.champion.figures if turn.champion else None)
        alias = turn.settle(
            passed=verdict.passed, leads=verdict.leads, description=_description(config, verdict, figures)
        )
    return Entry(str(model), f"models:/{config.model_name}/{turn.version.number}", alias), verdict


def _tags(manifests: Mapping[str, Manifest]) -> dict[str, str]:
    export = manifests["export"]
    return {
        "digest": export.digest,
        "data_digest": fingerprint({name: m.digest for name, m in sorted(manifests.items())}),
        "fingerprint": export.fingerprint,
        "code_version": export.code_version,
    }


def _description(config: RegisterConfig, verdict: Verdict, figures: Mapping[str, float]) -> str:
    shown = sorted((name, value) for name, value in figures.items() if "contaminated" not in name)
    table = [f"| {name} | {value:.4g} |" for name, value in shown[:_FIGURES_SHOWN]]
    use = (
        "Answer a conversation:",
        "```python",
        f'model = mlflow.pyfunc.load_model("models:/{config.model_name}@champion")',
        'model.predict({"messages": [{"role": "user", "content": "Hello"}]})',
        "```",
    )
    return "\n".join(["Gate:", *_lines(verdict, "FAILS"), "", *use, "", "| figure | value |", "|---|---|", *table])


def _summary(config: RegisterConfig, verdict: Verdict, entry: Entry) -> str:
    word = "passed" if verdict.passed else "failed"
    place = f"`{entry.mlflow_uri}` as `{entry.alias}`" if entry.alias else "not registered: the run has no tracking URI"
    lines = [f"# {config.model_name}: gate {word}", "", *_lines(verdict, "**fails**"), ""]
    return "\n".join([*lines, f"Model: `{entry.path}`, {place}", ""])


def _lines(verdict: Verdict, fails: str) -> list[str]:
    found = [f"- {'holds' if f.passed else fails}: {f.sentence}" for f in verdict.findings]
    return [*found, *(f"- {sentence}" for sentence in verdict.exceptions)]
