"""Where the project's files are, for the tests that read source text."""

from pathlib import Path

ROOT = Path(__file__).parents[2]
LIBRARY = ROOT / "components" / "qwenops"
PIPELINES = ROOT / "pipelines" / "qwenops_pipelines"
STAGES = sorted(path.parent for path in LIBRARY.glob("*/*/config.py"))
SOURCES = sorted([*LIBRARY.rglob("*.py"), *PIPELINES.rglob("*.py")])
DOCUMENTS = sorted(
    path for path in ROOT.rglob("*.md") if not any(part.startswith(".") or part == "runs" for part in path.parts)
)


def dotted(path: Path) -> str:
    """Import name of a source file or package folder of the library."""
    return ".".join(("qwenops", *path.relative_to(LIBRARY).with_suffix("").parts))


def stage_name(folder: Path) -> str:
    """Test id of a stage folder, for example "data.dedup"."""
    return f"{folder.parent.name}.{folder.name}"
