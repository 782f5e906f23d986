"""The scripts of `infra/ci` run as CI runs them, as far as a machine without buildah and registry allows."""

import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
SCRIPTS = sorted(
    path for path in (ROOT / "infra" / "ci").glob("*.py") if "__main__" in path.read_text(encoding="utf-8")
)
VERSIONS = yaml.safe_load((ROOT / "infra" / "versions.yaml").read_text(encoding="utf-8"))
BASE = "registry.example.org/python@sha256:" + "0" * 64


def script(name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a script from another folder, as nothing may depend on where it is called."""
    command = [sys.executable, str(ROOT / "infra" / "ci" / name), *arguments]
    return subprocess.run(command, check=False, capture_output=True, text=True, cwd="/")


@pytest.mark.parametrize(
    "path", [path for path in SCRIPTS if path.name != "fetch_tools.py"], ids=lambda path: path.name
)
def test_script_explains_itself(path):
    done = script(path.name, "--help")
    assert done.returncode == 0, done.stderr
    assert "usage:" in done.stdout


def test_dry_run_passes_every_argument_that_a_containerfile_wants():
    done = script("build_images.py", "--dry-run", "--base", BASE)
    assert done.returncode == 0, done.stderr
    commands = [shlex.split(line) for line in done.stdout.splitlines()]
    assert len(commands) == len(VERSIONS["images"])
    for command in commands:
        given = {command[at + 1].partition("=")[0] for at, word in enumerate(command) if word == "--build-arg"}
        text = Path(command[command.index("--file") + 1]).read_text(encoding="utf-8")
        wanted = {line.split()[1] for line in text.splitlines() if line.startswith("ARG ")}
        assert given == wanted
        assert f"BASE={BASE}" in command


def test_build_refuses_a_base_without_a_digest():
    if VERSIONS["bases"]["python"]["digest"]:
        pytest.skip("the base has a digest")
    done = script("build_images.py", "--dry-run", "server")
    assert done.returncode != 0
    assert "pin_digests.py" in done.stderr


def test_unknown_image_is_refused_with_the_known_ones():
    done = script("build_images.py", "--dry-run", "--base", BASE, "gpu")
    assert done.returncode != 0
    assert "server, data, train" in done.stderr


def test_pinning_changes_one_digest_and_keeps_the_comments():
    code = (
        "import sys; sys.path.insert(0, 'infra/ci'); import pin_digests, versions; "
        "text = versions.FILE.read_text(); "
        "print(pin_digests.pinned(text, 'docker.io/library/postgres', '17.6', 'sha256:' + 'a' * 64), end='')"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd=ROOT)
    before = (ROOT / "infra" / "versions.yaml").read_text(encoding="utf-8").splitlines()
    changed = [(old, new) for old, new in zip(before, done.stdout.splitlines(), strict=True) if old != new]
    assert len(changed) == 1
    assert yaml.safe_load(done.stdout)["services"]["postgresql"]["digest"] == "sha256:" + "a" * 64


def test_a_tampered_download_is_refused(tmp_path):
    pinned = VERSIONS["tools"]["kubernetes-validate"]
    folder = tmp_path / "qwenops" / "tools"
    folder.mkdir(parents=True)
    name = f"kubernetes_validate-{pinned['version']}-py3-none-any.whl"
    (folder / name).write_bytes(b"not the wheel")
    code = "import sys; sys.path.insert(0, 'infra/ci'); import fetch_tools; fetch_tools.wheel('kubernetes-validate')"
    environment = {"XDG_CACHE_HOME": str(tmp_path), "PATH": "/usr/bin:/bin"}
    done = subprocess.run(
        [sys.executable, "-c", code], check=False, capture_output=True, text=True, cwd=ROOT, env=environment
    )
    assert done.returncode != 0
    assert pinned["sha256"] in done.stderr
