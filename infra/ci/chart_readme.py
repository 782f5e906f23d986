"""Write the chart's README from its template and the comments of its values.

`README.md.tpl` holds the prose and one line `{{ values }}`, which the table replaces. `--check` writes nothing and
fails when the README is stale.
"""

import argparse
import json
from collections.abc import Iterator

import versions
import yaml

CHART = versions.ROOT / "helm" / "qwenops"
MARK = "# -- "


def described(node: yaml.MappingNode, lines: list[str], prefix: str = "") -> Iterator[tuple[str, str, str]]:
    """Yield (path, default as JSON, sentence) of each described value; a mapping without a sentence is entered."""
    for key, value in node.value:
        path = f"{prefix}{key.value}"
        above = lines[key.start_mark.line - 1].strip() if key.start_mark.line else ""
        if above.startswith(MARK):
            yield path, json.dumps(_plain(value), ensure_ascii=False), above.removeprefix(MARK)
        elif isinstance(value, yaml.MappingNode) and value.value:
            yield from described(value, lines, f"{path}.")
        else:
            raise SystemExit(f"values.yaml:{key.start_mark.line + 1}: {path} has no `{MARK.strip()}` sentence above it")


def table() -> str:
    """Return the table of values."""
    text = (CHART / "values.yaml").read_text(encoding="utf-8")
    rows = described(yaml.compose(text), text.splitlines())
    body = "\n".join(f"| `{path}` | `{default}` | {sentence} |" for path, default, sentence in rows)
    return f"| value | default | what it is |\n|---|---|---|\n{body}"


def readme() -> str:
    """Return the README."""
    return (CHART / "README.md.tpl").read_text(encoding="utf-8").replace("{{ values }}", table())


def _plain(node: yaml.Node) -> object:
    return yaml.safe_load(yaml.serialize(node))


def main() -> None:
    """Write or check the README."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="fail when the README is stale")
    target = CHART / "README.md"
    if not parser.parse_args().check:
        target.write_text(readme(), encoding="utf-8")
    elif not target.exists() or target.read_text(encoding="utf-8") != readme():
        raise SystemExit("helm/qwenops/README.md is stale; run `python infra/ci/chart_readme.py`")


if __name__ == "__main__":
    main()
