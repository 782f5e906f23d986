"""The data stages of a recipe from a cold cache to token shards, of this tree and of other checkouts, side by side.

Each run is `qwenops run RECIPE --until tokens` in processes of its own, with an empty cache and an empty folder, so
that downloads, Ray's start and the imports count. Seconds are wall time: run it on a quiet machine. What a stage reads
is what the one before it kept: pages for `ingest`, text from there on.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

_HERE = Path(__file__).parents[2]
_CHAIN = ("collect", "ingest", "quality", "dedup", "decontaminate")
_READ_LAST = ("tokenizer", "mixture", "tokens")
_RUN = "import sys; from qwenops_pipelines.cli import main; sys.exit(main(sys.argv[1:]))"


def corpus(_: list[str], options: argparse.Namespace) -> None:
    """Seconds, MB and MB/s of every data stage of a recipe and of all, of this tree and of each `--checkout`."""
    totals: list[float] = []
    for checkout in [_HERE, *options.checkout]:
        with TemporaryDirectory() as folder:
            totals.append(_show(checkout.resolve(), options.recipe, Path(folder)))
    for checkout, spent in zip(options.checkout, totals[1:], strict=True):
        print(f"  {_commit(_HERE)} takes {totals[0] / spent:.2f} of the seconds of {_commit(checkout)}")


def _show(checkout: Path, recipe: str, folder: Path) -> float:
    """Run, print a row for each stage, and return the wall seconds of all."""
    environment = _environment(checkout, folder)
    command = [sys.executable, "-c", _RUN, "run", recipe, "--until", "tokens", "--out", str(folder / "run")]
    began = time.monotonic()
    done = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, check=False)
    spent = time.monotonic() - began
    if done.returncode:
        raise SystemExit(f"{checkout}: the run of {recipe} failed\n{(done.stdout + done.stderr)[-3000:]}")
    stages = json.loads((folder / "run" / "run.json").read_text(encoding="utf-8"))["stages"]
    kept = {name: _kept(stages[name]) for name in _CHAIN}
    print(f"  {_commit(checkout)}, {recipe}, load {os.getloadavg()[0]:.1f}")
    print(f"    {'stage':13} {'seconds':>8} {'MB in':>8} {'MB/s':>8} {'documents in':>13}")
    sources = dict(zip(_CHAIN, ("collect", *_CHAIN), strict=False)) | dict.fromkeys(_READ_LAST, _CHAIN[-1])
    for name, source in sources.items():
        (documents, size), seconds = kept[source], stages[name]["seconds"]
        print(f"    {name:13} {seconds:8.1f} {size / 1e6:8.2f} {size / 1e6 / seconds:8.3f} {documents:13}")
    after = spent - stages["collect"]["seconds"]
    for what, seconds in (("all", spent), ("after collect", after)):
        (documents, pages), (_, text) = kept["collect"], kept["ingest"]
        print(
            f"    {what:13} {seconds:8.1f} {pages / 1e6:8.2f} {pages / 1e6 / seconds:8.3f} {documents:13}"
            f"   {text / 1e6 / seconds:.3f} MB/s of text ({text / 1e6:.2f} MB)",
            flush=True,
        )
    return spent


def _environment(checkout: Path, folder: Path) -> dict[str, str]:
    """Variables under which Python finds the checkout's packages, whatever is installed."""
    found = {name: value for name, value in os.environ.items() if not name.startswith("QWENOPS_")}
    found["PYTHONPATH"] = os.pathsep.join(str(checkout / name) for name in ("components", "pipelines"))
    found["QWENOPS_CACHE"] = str(folder / "cache")
    shown = "import qwenops, qwenops_pipelines as p; print(qwenops.__file__, p.__file__)"
    files = subprocess.run([sys.executable, "-c", shown], env=found, capture_output=True, text=True, check=True).stdout
    if not all(Path(one).is_relative_to(checkout) for one in files.split()):
        raise SystemExit(f"--checkout must be a whole working tree: expected packages below {checkout}, found {files}")
    return found


def _kept(stage: dict[str, Any]) -> tuple[int, int]:
    """Documents and bytes that a stage passed on."""
    (output,) = stage["outputs"].values()
    funnel = json.loads(Path(output["path"], "funnel.json").read_text(encoding="utf-8"))
    return funnel["kept"], sum(group["bytes"] for group in funnel["by_domain"].values())


def _commit(checkout: Path) -> str:
    command = ["git", "-C", str(checkout), "describe", "--always", "--dirty"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip() or checkout.name
