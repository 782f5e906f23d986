"""Commands that the documents of infra and helm show can be run: syntax, programs, sub-commands, flags, files."""

import functools
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCUMENTS = [ROOT / "infra" / "README.md", ROOT / "helm" / "qwenops" / "README.md"]
_FENCE = re.compile(r"^```\n(.*?)^```", re.MULTILINE | re.DOTALL)


def blocks() -> list[tuple[str, str]]:
    """(document, block) of every block of commands."""
    return [
        (path.parent.name, block) for path in DOCUMENTS for block in _FENCE.findall(path.read_text(encoding="utf-8"))
    ]


def commands(program: str) -> list[str]:
    """Command lines of one program."""
    lines = [line for _, block in blocks() for line in block.splitlines()]
    return sorted({line for line in lines if line.split()[0] == program})


@pytest.mark.parametrize(("document", "block"), blocks())
def test_block_is_valid_shell(document, block):
    done = subprocess.run(["bash", "-n"], input=block, check=False, capture_output=True, text=True)
    assert done.returncode == 0, f"{document}: {done.stderr}"


def test_documents_call_only_these_programs():
    called = {line.split()[0] for _, block in blocks() for line in block.splitlines()}
    assert called == {"curl", "helm", "kind", "kubectl", "python", "qwenops"}


@functools.cache
def help_of(program: str, *words: str) -> str:
    """What a program says about a sub-command and about the options of all of them."""
    done = subprocess.run([program, *words, "--help"], check=True, capture_output=True, text=True)
    shared = subprocess.run([program, "options"], check=False, capture_output=True, text=True).stdout
    return done.stdout + shared


def subcommand(program: str, line: str) -> list[str]:
    """Words of a line that name the sub-command."""
    known = ({"repo"}, {"create", "auth", "rollout"})[program == "kubectl"]
    words = [
        word
        for word in shlex.split(line)[1:]
        if not word.startswith("-") and word not in ("default", "research", "kubeflow", "team-b")
    ]
    if words[0] not in known:
        return words[:1]
    return words[:3] if words[1] == "secret" else words[:2]


@pytest.mark.parametrize("line", [*commands("helm"), *commands("kubectl")])
def test_flags_are_those_of_the_pinned_program(tools, line):
    program = line.split()[0]
    text = help_of(tools[program], *subcommand(program, line))
    own = shlex.split(line.split(" -- ")[0])
    used = {word.partition("=")[0] for word in own if word.startswith("--")}
    assert sorted(flag for flag in used if not re.search(rf"(^|\s){flag}\b", text)) == []


@pytest.mark.parametrize(
    "line", [line for line in commands("helm") if "helm/qwenops" in line and "test" not in line.split()[1]]
)
def test_helm_command_renders_with_its_values(tools, line):
    words = shlex.split(line)
    # A file of the reader's own stands for the chart's defaults.
    values = [ROOT / word for word in words if word.endswith("-values.yaml") and word != "my-values.yaml"]
    namespace = words[words.index("--namespace") + 1]
    changes = [words[at + 1] for at, word in enumerate(words) if word == "--set"]
    done = subprocess.run(
        [
            *(tools["helm"], "template", "qwenops", str(ROOT / "helm" / "qwenops"), "--namespace", namespace),
            *(part for path in values for part in ("--values", str(path))),
            *(part for change in changes for part in ("--set", change)),
        ],
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("line", [line for line in commands("kubectl") if " create secret " in line])
def test_secrets_can_be_made_as_shown(tools, line):
    words = shlex.split(line)[1:]
    done = subprocess.run(
        [tools["kubectl"], *words, "--dry-run=client", "--output=name"], check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("secret/")


@pytest.mark.parametrize("line", commands("python"))
def test_scripts_exist_and_know_their_arguments(line):
    words = shlex.split(line)
    done = subprocess.run([sys.executable, str(ROOT / words[1]), "--help"], check=True, capture_output=True, text=True)
    assert [word for word in words[2:] if word.startswith("--") and word not in done.stdout] == []


def test_python_inside_commands_compiles():
    codes = [shlex.split(line)[-1] for line in commands("kubectl") if "python -c" in line and "--overrides" not in line]
    assert len(codes) >= 3
    for code in codes:
        compile(code, "<shown>", "exec")


def test_kind_cluster_is_one_node_on_loopback():
    text = (ROOT / "infra" / "kind" / "cluster.yaml").read_text(encoding="utf-8")
    assert text.count("role:") == 1
    assert "apiServerAddress: 127.0.0.1" in text
