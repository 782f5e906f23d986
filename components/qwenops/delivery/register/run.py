"""Judge the model by the gate, register it in MLflow by path, and move its aliases."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from qwenops.contracts.manifest import Manifest, read_manifest
from qwenops.delivery.register.config import RegisterConfig
from qwenops.delivery.register.gate import Finding, figure_value, judge, not_worse, passed
from qwenops.platform import registry, storage
from qwenops.platform.stage import Stage
from qwenops.recipe.codec import fingerprint

RECORD = "register.json"


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
        config: Rules and names.
        model: The exported folder.
        stage: Where to write and what to report to.
        evaluations: Node name to its published artifact; the nodes that the rules name.
    """
    manifests = {"export": read_manifest(model)} | {name: read_manifest(path) for name, path in evaluations.items()}
    figures = {f"{node}.{name}": value for node, m in manifests.items() for name, value in m.metrics.items()}
    findings = judge(config, figures)
    entry = _register(config, model, stage, manifests, figures, findings)
    record = {
        "passed": passed(findings),
        "reasons": [finding.sentence for finding in findings],
        "findings": [{"passed": f.passed, "sentence": f.sentence, **f.rule.model_dump(mode="json")} for f in findings],
        "model": asdict(entry),
        "mlflow_uri": entry.mlflow_uri,
        "alias": entry.alias,
    }
    (stage.out / RECORD).write_text(json.dumps(record, indent=1, ensure_ascii=False), encoding="utf-8")
    (stage.out / "summary.md").write_text(_summary(config, findings, entry), encoding="utf-8")
    stage.metric("gate.passed", float(passed(findings)))
    stage.records = len(findings)
    for finding in findings:
        if not finding.passed:
            stage.warn(f"gate: {finding.sentence}")


def _register(
    config: RegisterConfig,
    model: Path,
    stage: Stage,
    manifests: Mapping[str, Manifest],
    figures: Mapping[str, float],
    findings: list[Finding],
) -> Entry:
    uri = stage.context.tracking_uri
    if not uri:
        return Entry(str(model), "", None)
    present = registry.champion(uri, config.model_name)
    version = registry.register(
        uri,
        config.model_name,
        storage.files_address(model, manifests["export"].artifact_id, stage.context),
        run_id=stage.context.parent_run_id,
        figures=_kept(config, figures),
        tags=_tags(manifests, findings),
        description=_description(findings, figures),
    )
    entry = Entry(str(model), f"models:/{config.model_name}/{version.number}", registry.CANDIDATE)
    if present is not None:
        findings.append(not_worse(config, figures, present.figures))
    if not passed(findings):
        return entry
    registry.promote(uri, config.model_name, version)
    return Entry(entry.path, entry.mlflow_uri, registry.CHAMPION)


def _kept(config: RegisterConfig, figures: Mapping[str, float]) -> dict[str, float]:
    names = {config.champion_figure, *(rule.figure for rule in config.rules)}
    values = {name: figure_value(name, figures) for name in sorted(names)}
    return {name: value for name, value in values.items() if value is not None}


def _tags(manifests: Mapping[str, Manifest], findings: Sequence[Finding]) -> dict[str, str]:
    export = manifests["export"]
    return {
        "digest": export.digest,
        "data_digest": fingerprint({name: m.digest for name, m in sorted(manifests.items())}),
        "fingerprint": export.fingerprint,
        "code_version": export.code_version,
        "gate": "passed" if passed(findings) else "failed",
    }


def _description(findings: Sequence[Finding], figures: Mapping[str, float]) -> str:
    lines = [f"- {'holds' if f.passed else 'FAILS'}: {f.sentence}" for f in findings]
    table = [f"| {name} | {value:.4g} |" for name, value in sorted(figures.items()) if "contaminated" not in name]
    return "\n".join(["Gate:", *lines, "", "| figure | value |", "|---|---|", *table[:80]])


def _summary(config: RegisterConfig, findings: Sequence[Finding], entry: Entry) -> str:
    verdict = "passed" if passed(findings) else "failed"
    lines = [f"- {'holds' if f.passed else '**fails**'}: {f.sentence}" for f in findings]
    place = f"`{entry.mlflow_uri}` as `{entry.alias}`" if entry.alias else "not registered: the run has no tracking URI"
    return "\n".join([f"# {config.model_name}: gate {verdict}", "", *lines, "", f"Model: `{entry.path}`, {place}", ""])
