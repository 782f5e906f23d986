"""What a shell completes after `qwenops`: commands, recipes, placements, stages and the paths of fields."""

import argparse
from collections.abc import Callable, Sequence
from typing import Any

import argcomplete
from argcomplete.completers import FilesCompleter
from argcomplete.shell_integration import shellcode

from qwenops.recipe.fields import inner_type, kinds_of
from qwenops.recipe.schema import NODES, Recipe
from qwenops_pipelines.placements import PLACEMENTS
from qwenops_pipelines.recipes import RECIPES

_RECIPE_FILES = FilesCompleter(allowednames=("yaml", "yml", "json"))
_PLACEMENT_FILES = FilesCompleter(allowednames=("json",))


def script(shell: str) -> str:
    """What `bash`, `zsh` or `fish` has to read: `eval "$(qwenops completion bash)"`."""
    return shellcode(["qwenops"], shell=shell)


def answer(parser: argparse.ArgumentParser) -> None:
    """Answer the shell that asks, and end the process; nothing where no shell asks."""
    for command in _commands(parser):
        for action in command._actions:
            if completer := _COMPLETERS.get(action.dest):
                setattr(action, "completer", completer)  # noqa: B010 - argcomplete's own way, which no type knows
    argcomplete.autocomplete(parser)


def _commands(parser: argparse.ArgumentParser) -> list[argparse.ArgumentParser]:
    return [
        command
        for action in parser._actions
        if isinstance(action, argparse._SubParsersAction)
        for command in action.choices.values()
    ]


def fields(prefix: str) -> list[str]:
    """Paths that go on from the last dot of `prefix`; those of configs end with a dot."""
    *parents, _ = prefix.split(".")
    owner: Any = Recipe
    for step in parents:
        owner = inner_type(owner, step.partition("[")[0])
    start = "".join(f"{step}." for step in parents)
    names = ("name", "seed", *NODES) if owner is Recipe else (*getattr(owner, "model_fields", {}), *kinds_of(owner))
    return [f"{start}{name}{'.' if hasattr(inner_type(owner, name), 'model_fields') else ''}" for name in names]


def _complete_set(prefix: str, **_: Any) -> Sequence[str]:
    return [path if path.endswith(".") else f"{path}=" for path in fields(prefix)]


_COMPLETERS: dict[str, Callable[..., Any]] = {
    "recipe": lambda prefix, **_: [*RECIPES, *_RECIPE_FILES(prefix)],
    "placement": lambda prefix, **_: [*PLACEMENTS, *_PLACEMENT_FILES(prefix)],
    "until": lambda **_: NODES,
    "restart": lambda **_: NODES,
    "why": lambda **_: NODES,
    "path": lambda prefix, **_: fields(prefix),
    "overrides": _complete_set,
}
