"""The DAGs as text, for people: `python -m tests.dags.golden` rewrites `golden.txt` and prints what changed."""

import difflib
import tempfile
from pathlib import Path

import yaml

from qwenops_pipelines.compile import compile_pipeline
from qwenops_pipelines.dags.pipelines import PIPELINES
from qwenops_pipelines.placements import by_name
from qwenops_pipelines.recipes import load_recipe

GOLDEN = Path(__file__).parent / "golden.txt"


def read_spec(path):
    """The pipeline spec of a compiled file, without the platform's part."""
    with path.open(encoding="utf-8") as stream:
        return next(iter(yaml.load_all(stream, getattr(yaml, "CSafeLoader", yaml.SafeLoader))))


def all_tasks(spec):
    """Task name to task, of the pipeline and of the DAG inside its exit handler."""
    found = {}
    for name, task in spec["root"]["dag"]["tasks"].items():
        inner = spec["components"][task["componentRef"]["name"]].get("dag")
        found |= inner["tasks"] if inner else {name: task}
    return found


def describe(spec):
    """The form, then a line per task: what it reads and whether Kubeflow may cache it."""
    form = ", ".join(spec["root"]["inputDefinitions"]["parameters"])
    lines = [f"{spec['pipelineInfo']['name']} ({form})"]
    for name, task in all_tasks(spec).items():
        artifacts = task.get("inputs", {}).get("artifacts", {})
        sources = {key: facts["taskOutputArtifact"] for key, facts in artifacts.items()}
        reads = [f"{key}={facts['producerTask']}.{facts['outputArtifactKey']}" for key, facts in sources.items()]
        after = set(task.get("dependentTasks", ())) - {facts["producerTask"] for facts in sources.values()}
        reads += [f"after {name}" for name in sorted(after - {"resolve-recipe", "run"})]
        cached = "" if task.get("cachingOptions", {}).get("enableCache") else " [not cached]"
        always = " [always]" if task.get("triggerPolicy", {}).get("strategy") == "ALL_UPSTREAM_TASKS_COMPLETED" else ""
        lines.append(f"  {name}{cached}{always}" + (f" <- {', '.join(reads)}" if reads else ""))
    return "\n".join(lines) + "\n"


def describe_all():
    """All five pipelines of `smoke` at `h200_node`."""
    parts = []
    with tempfile.TemporaryDirectory() as folder:
        for pipeline in PIPELINES.values():
            path = Path(folder) / "p.yaml"
            compile_pipeline(load_recipe("smoke", []), by_name("h200_node"), path, pipeline=pipeline)
            parts.append(describe(read_spec(path)))
    return "\n".join(parts)


if __name__ == "__main__":
    old = GOLDEN.read_text(encoding="utf-8") if GOLDEN.exists() else ""
    new = describe_all()
    print("".join(difflib.unified_diff(old.splitlines(True), new.splitlines(True), "before", "after")))
    GOLDEN.write_text(new, encoding="utf-8")
