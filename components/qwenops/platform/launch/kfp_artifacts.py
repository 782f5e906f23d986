"""What a stage shows in the Kubeflow UI: figures, a summary, a page of curves, heat maps and gates, a confusion matrix.

Everything is drawn from the published artifact (its manifest and the files that stages write under fixed names), so
a reused stage shows the same as the run that made it, and no stage draws anything itself.

The typed output keeps the URI that Kubeflow gave it: its launcher takes no other, and copies what lies there. So the
artifact itself stays in the store, and a file of a few hundred bytes at the output's path says where.
"""

import json
import math
import os
import re
from collections.abc import Iterator, Mapping
from html import escape
from pathlib import Path
from typing import Any

from qwenops.contracts.manifest import Manifest
from qwenops.contracts.metrics import find_metric
from qwenops.errors import ContractError
from qwenops.platform.context import RunContext
from qwenops.platform.pictures.charts import Series, heat_map, line_chart, number
from qwenops.platform.pictures.style import STYLE
from qwenops.platform.storage import addresses

FORM = "address-1"
"""Names what a step's typed output holds. Part of every cache key: what another form left is not taken up."""
REPORT, SUMMARY, GATES, CURVES, CONFUSION = "report.html", "summary.md", "gate/*.html", "curves.jsonl", "confusion.json"
# The comparison of runs in the UI aligns a handful of figures; all of them stand in the summary and in MLflow.
_MOST_METRICS = 12
_MOST_LINES = 60
_GRID = re.compile(r"(?P<grid>\w+)\.(?P<row>\w+)\.(?P<column>\d+x)\.accuracy")
_BODY = re.compile(r"<body[^>]*>(.*)</body>", re.DOTALL)
_CONTROLS = ("control", "dense", "adamw")


def fill(
    path: Path,
    manifest: Manifest,
    context: RunContext,
    *,
    address: str = "",
    output: Any = None,
    metrics: Any = None,
    summary: Any = None,
    page: Any = None,
    classes: Any = None,
) -> None:
    """Fill the KFP artifacts of one task; each may be None.

    Args:
        path: The published folder.
        manifest: Its manifest.
        context: Where this runs; names the MLflow run.
        address: Where the artifact lies; empty for the folder.
        output: The typed artifact; its file and its metadata say where it lies, what it is and what made it.
        metrics: `dsl.Metrics`: at most twelve figures of the stage, its seconds and its records.
        summary: `dsl.Markdown`: counts, warnings, all figures, and the stage's own `summary.md`.
        page: `dsl.HTML`: heat maps, curves and the pages of the gates, or the run's report.
        classes: `dsl.ClassificationMetrics`: the confusion matrix of `confusion.json`.
    """
    if output is not None:
        facts = {"address": address or str(path), **metadata(manifest, context)}
        Path(output.path).write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
        output.metadata.update(facts)
    if metrics is not None:
        for name, value in headline(manifest).items():
            metrics.log_metric(name, value)
    if summary is not None:
        Path(summary.path).write_text(markdown(path, manifest), encoding="utf-8")
    if page is not None:
        Path(page.path).write_text(html(path, manifest), encoding="utf-8")
    if classes is not None:
        matrix = json.loads((path / CONFUSION).read_text(encoding="utf-8"))
        classes.log_confusion_matrix(matrix["categories"], matrix["counts"])


def address_of(place: str | Path) -> str:
    """Where the artifact lies that `place` stands for: a folder or an `s3://` address itself, or a step's output file.

    Raises:
        ContractError: there is nothing at `place`, or a file that no step wrote.
    """
    path = Path(place)
    if addresses.is_remote(place) or path.is_dir():
        return str(place)
    try:
        return str(json.loads(path.read_text(encoding="utf-8"))["address"])
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ContractError(
            f"no artifact at {place}",
            expected="a folder, an s3:// address, or the file in which a step says where its artifact lies",
            found=f"{type(error).__name__}: {error}",
            action="run the step that makes it again; on Kubeflow without its cache",
        ) from None


def metadata(manifest: Manifest, context: RunContext) -> dict[str, Any]:
    """What the artifact's page in the UI lists: identity by digest, counts, code, config, MLflow run."""
    return {
        "node": manifest.node,
        "digest": manifest.digest,
        "records": manifest.records,
        "counts": json.dumps(dict(manifest.counts), sort_keys=True),
        "code_version": manifest.code_version,
        "fingerprint": manifest.fingerprint,
        "artifact_id": manifest.artifact_id,
        "mlflow_run_id": os.environ.get("MLFLOW_RUN_ID", "") or context.parent_run_id,
    }


def headline(manifest: Manifest) -> dict[str, float]:
    """The figures with the shortest names first: `loss.final` before `niah.dca.8x.accuracy`."""
    ordered = sorted(manifest.metrics, key=lambda name: (name.count("."), name))
    # JSON has no word for the others, and Kubeflow's launcher would refuse the whole step for one.
    finite = [name for name in ordered if math.isfinite(manifest.metrics[name])]
    chosen = {name: float(manifest.metrics[name]) for name in finite[:_MOST_METRICS]}
    return {**chosen, "seconds": round(manifest.seconds, 3), "records": float(manifest.records)}


def markdown(path: Path, manifest: Manifest) -> str:
    """The summary of one stage."""
    lines = [f"# {manifest.node}", "", f"{manifest.records:,} records in {manifest.seconds:.1f} s."]
    lines += [f"\n**Warning:** {sentence}" for sentence in manifest.warnings]
    lines += _counts(manifest.counts)
    if manifest.metrics:
        shown = sorted(manifest.metrics.items())[:_MOST_LINES]
        lines += ["", "| figure | value | unit |", "|---|---|---|"]
        lines += [f"| {name} | {number(value, 4)} | {_unit(name)} |" for name, value in shown]
        if len(manifest.metrics) > _MOST_LINES:
            lines.append(f"\n{len(manifest.metrics) - _MOST_LINES} more figures are in MLflow and in the report.")
    own = path / SUMMARY
    if own.is_file():
        lines += ["", "---", "", own.read_text(encoding="utf-8").strip()]
    return "\n".join([*lines, "", f"Artifact `{path}`, digest `{manifest.digest[:16]}`."]) + "\n"


def html(path: Path, manifest: Manifest) -> str:
    """One self-contained page: the run's report where the artifact holds one, else heat maps, curves and gates."""
    if (path / REPORT).is_file():
        return (path / REPORT).read_text(encoding="utf-8")
    parts = [*_heat_maps(manifest), *_charts(path / CURVES)]
    grid = f'<div class="grid">{"".join(parts)}</div>' if parts else ""
    gates = "".join(_gate(file) for file in sorted(path.glob(GATES)))
    body = grid + gates or '<p class="soft">This stage drew nothing.</p>'
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(manifest.node)}</title>'
        f"<style>{STYLE}</style></head><body><main><h1>{escape(manifest.node)}</h1>{body}</main></body></html>\n"
    )


def _counts(counts: Mapping[str, Any]) -> list[str]:
    if not counts:
        return []
    lines = ["", "| records | count |", "|---|---|", f"| read | {counts['read']:,} |", f"| kept | {counts['kept']:,} |"]
    return lines + [f"| dropped: {reason} | {count:,} |" for reason, count in sorted(counts["dropped"].items())]


def _unit(name: str) -> str:
    listed = find_metric(name)
    return listed.unit if listed else ""


def _heat_maps(manifest: Manifest) -> Iterator[str]:
    """Grids among the figures (`niah.<mode>.<length>.accuracy`) as heat maps, longer lengths to the right."""
    grids: dict[str, dict[str, dict[str, float]]] = {}
    for name, value in manifest.metrics.items():
        found = _GRID.fullmatch(name)
        if found:
            grids.setdefault(found["grid"], {}).setdefault(found["row"], {})[found["column"]] = value
    for title, rows in sorted(grids.items()):
        columns = sorted({column for row in rows.values() for column in row}, key=lambda text: int(text[:-1]))
        yield heat_map(title, columns, {row: [cells.get(c) for c in columns] for row, cells in rows.items()}, "mode")


def _charts(path: Path) -> Iterator[str]:
    """One chart per kind of curve: `loss`, `loss.control` and `loss.dense` share one."""
    if not path.is_file():
        return
    kinds: dict[str, dict[str, list[tuple[float, float]]]] = {}
    with path.open(encoding="utf-8") as stream:
        for point in map(json.loads, stream):
            curves = kinds.setdefault(point["name"].split(".", 1)[0], {})
            curves.setdefault(point["name"], []).append((point["step"], point["value"]))
    for kind, curves in sorted(kinds.items()):
        series = [Series(name, points, any(word in name for word in _CONTROLS)) for name, points in curves.items()]
        yield line_chart(kind.replace("_", " "), sorted(series, key=lambda s: s.dashed), "step", "")


def _gate(file: Path) -> str:
    found = _BODY.search(file.read_text(encoding="utf-8"))
    inside = found.group(1) if found else ""
    return f'<details class="card" open><summary>Gate: {escape(file.stem)}</summary>{inside}</details>'
