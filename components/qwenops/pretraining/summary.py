"""`summary.md` and `needles.json`: what a person opens first."""

import json
from collections.abc import Mapping
from pathlib import Path


def write_summary(out: Path, title: str, figures: Mapping[str, float], by_depth: Mapping[str, float]) -> None:
    """Write the figures as a table and needle accuracy by depth beside the checkpoint."""
    lines = [f"# {title}", "", "| figure | value |", "|---|---|"]
    lines += [f"| {name} | {value:.4g} |" for name, value in sorted(figures.items())]
    if by_depth:
        lines += ["", "| needle depth | accuracy |", "|---|---|"]
        lines += [f"| {depth} | {value:.3f} |" for depth, value in by_depth.items()]
        (out / "needles.json").write_text(json.dumps({"by_depth": dict(by_depth)}, indent=1), encoding="utf-8")
    (out / "summary.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
