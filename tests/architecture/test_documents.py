"""What the documents say can be done: commands parse, targets and linked files exist."""

import re
import shlex
from contextlib import nullcontext
from pathlib import Path

import pytest
from tests.architecture.places import DOCUMENTS, ROOT

from qwenops_pipelines.cli import _parser

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
_INLINE = re.compile(r"`((?:qwenops|make) [^`\n]+)`")
_LINK = re.compile(r"\]\((?!https?://|#)([^)#\s]+)")
# Shown as a form and not as a command: `qwenops run RECIPE [--out DIR]`.
_PLACEHOLDER = re.compile(r"\[|\||\.\.\.|<\w+>")


def shown_commands() -> list[tuple[str, str]]:
    """(document, command) for each command line that a document shows."""
    found: list[tuple[str, str]] = []
    for path in DOCUMENTS:
        text = path.read_text(encoding="utf-8")
        blocks = [block for kind, block in _FENCE.findall(text) if kind in ("", "sh", "bash")]
        lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
        commands = [line.removeprefix("$ ") for line in lines if re.match(r"(\$ )?(qwenops|make) ", line)]
        commands += _INLINE.findall(_FENCE.sub("", text))
        found += [(str(path.relative_to(ROOT)), command) for command in commands if not _PLACEHOLDER.search(command)]
    return sorted(set(found))


@pytest.mark.parametrize(("document", "command"), shown_commands())
def test_shown_command_is_one_the_project_has(document: str, command: str):
    program, *arguments = shlex.split(command, comments=True)
    if program == "qwenops":
        # A command's bare name in a sentence is a mention; its help is shown for the price of a parse.
        with pytest.raises(SystemExit, match="0") if len(arguments) == 1 else nullcontext():
            _parser().parse_args(arguments if len(arguments) > 1 else [*arguments, "--help"])
    else:
        targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
        assert set(word for word in arguments if "=" not in word and not word.startswith("-")) <= set(targets)


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_linked_files_exist(path: Path):
    links = _LINK.findall(_FENCE.sub("", path.read_text(encoding="utf-8")))
    assert [link for link in links if not (path.parent / link).exists()] == []


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_document_uses_plain_dashes(path: Path):
    assert "\u2014" not in path.read_text(encoding="utf-8")
