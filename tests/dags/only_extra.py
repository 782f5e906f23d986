"""An interpreter that has what one extra of this project installs, and nothing else of the environment.

What belongs to the extra is read from the metadata of the installed distributions, as pip would; an import of any other
installed distribution fails as if it were missing.
"""

import functools
import tomllib
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from tests.architecture.places import ROOT

_BLOCK = """
import sys

class _Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {blocked!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}} in this environment", name=name)

sys.meta_path.insert(0, _Missing())
"""


def only_extra(extra: str, folder: Path) -> Path:
    """Write into `folder` what makes interpreters with it on PYTHONPATH have `extra` alone ("": none); returns it."""
    folder.mkdir(parents=True, exist_ok=True)
    code = _BLOCK.format(blocked=sorted(_others(extra)))
    (folder / "sitecustomize.py").write_text(code, encoding="utf-8")
    return folder


@functools.cache
def _others(extra: str) -> frozenset[str]:
    """Modules of installed distributions that neither the project nor `extra` asks for, directly or not."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    waiting = [*project["dependencies"], *project["optional-dependencies"].get(extra, ())]
    wanted: set[tuple[str, str]] = set()
    while waiting:
        asked = Requirement(waiting.pop())
        for part in ("", *asked.extras):
            key = (asked.name.lower().replace("_", "-"), part)
            if key in wanted:
                continue
            wanted.add(key)
            needs = [Requirement(line) for line in metadata.requires(asked.name) or []]
            waiting += [str(need) for need in needs if need.marker is None or need.marker.evaluate({"extra": part})]
    names = {name for name, _ in wanted}
    modules = metadata.packages_distributions()
    ours = {"qwenops", "qwenops_pipelines"}
    return frozenset(
        module
        for module, owners in modules.items()
        if module not in ours and not names & {owner.lower().replace("_", "-") for owner in owners}
    )
