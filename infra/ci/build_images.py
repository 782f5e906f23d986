"""Build the project's images with buildah from `infra/versions.yaml`, and print their sizes.

Needs buildah and no daemon. Every version, index and base comes from the list of versions, so that a Containerfile
repeats none. `--dry-run` prints the commands and runs nothing but the reading of the list.
"""

import argparse
import os
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import versions

REPOSITORY = "qwenops"


def build_command(name: str, listed: dict[str, Any], base: str, context: Path, revision: str, epoch: str) -> list[str]:
    """Return the buildah command of one image.

    Args:
        name: Key of `images` in the list of versions.
        listed: The list of versions.
        base: Reference of the base image.
        context: Folder with `constraints.txt` and `wheel/`.
        revision: Commit the image is built from.
        epoch: Time of that commit, seconds, so that two builds of it have the same dates.
    """
    image = listed["images"][name]
    arguments = {
        "BASE": base,
        "EXTRAS": ",".join(image["extras"]),
        "SBOM_TOOL": f"cyclonedx-bom=={listed['tools']['cyclonedx-bom']['version']}",
        "VERSION": version(),
        "REVISION": revision,
    }
    if image["torch"]:
        arguments |= {"TORCH": listed["packages"]["torch"], "TORCH_INDEX": listed["torch"][image["torch"]]["index"]}
    return [
        *["buildah", "build", "--format", "oci", "--layers", "--timestamp", epoch],
        *(part for key, value in arguments.items() for part in ("--build-arg", f"{key}={value}")),
        *["--file", str(versions.ROOT / "infra" / "images" / f"{name}.Containerfile")],
        *["--tag", f"{REPOSITORY}/{name}:{version()}", str(context)],
    ]


def version() -> str:
    """Return the version of the distribution."""
    text = (versions.ROOT / "components" / "qwenops" / "__init__.py").read_text(encoding="utf-8")
    return text.split('__version__ = "')[1].split('"')[0]


def stage(context: Path) -> None:
    """Put into the build context what a Containerfile copies: the pins and the wheel, and no file beside them."""
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(context / "wheel")]
    subprocess.run([*command, str(versions.ROOT)], check=True)
    (context / "constraints.txt").write_bytes((versions.ROOT / "constraints.txt").read_bytes())


def main() -> None:
    """Build the images named on the command line, all of them by default."""
    listed = versions.read()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("images", nargs="*", metavar="IMAGE", help=f"{', '.join(listed['images'])} (default: all)")
    parser.add_argument("--base", help="base image in place of the one in the list, for example a mirror's")
    parser.add_argument("--dry-run", action="store_true", help="print the commands")
    options = parser.parse_args()
    for name in options.images or listed["images"]:
        if name not in listed["images"]:
            raise SystemExit(f"no image {name!r}; expected one of {', '.join(listed['images'])}")
        base = options.base or versions.reference(listed["bases"][listed["images"][name]["base"]])
        with tempfile.TemporaryDirectory() as folder:
            command = build_command(
                name, listed, base, Path(folder), _git("rev-parse", "HEAD"), _git("log", "-1", "--format=%ct")
            )
            print(shlex.join(command), flush=True)
            if not options.dry_run:
                stage(Path(folder))
                subprocess.run(command, check=True, env={**os.environ, "BUILDAH_LAYERS": "true"})
    if not options.dry_run:
        subprocess.run(["buildah", "images", "--format", "{{.Name}}:{{.Tag}} {{.Size}}", f"{REPOSITORY}/*"], check=True)


def _git(*arguments: str) -> str:
    return subprocess.run(
        ["git", "-C", str(versions.ROOT), *arguments], check=True, capture_output=True, text=True
    ).stdout.strip()


if __name__ == "__main__":
    main()
