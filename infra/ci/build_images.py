"""Build the project's images with buildah from `infra/versions.yaml`, and print their sizes.

Needs buildah and no daemon. Every version, index and base comes from the list of versions, so that a Containerfile
repeats none. `--dry-run` prints the commands and runs nothing but the reading of the list. What stands after `--` goes
to `buildah build` as it is: a mirror's `--build-arg TORCH_INDEX=URL`, a `--volume` with packages or certificates.
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


def build_command(
    name: str, listed: dict[str, Any], base: str, context: Path, revision: str, epoch: str, extra: list[str]
) -> list[str]:
    """Return the buildah command of one image.

    Args:
        name: Key of `images` in the list of versions.
        listed: The list of versions.
        base: Reference of the base image.
        context: Folder with `constraints.txt` and `wheel/`.
        revision: Commit the image is built from.
        epoch: Time of that commit, seconds, so that two builds of it have the same dates.
        extra: Arguments of `buildah build` that win over those of the list.
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
        *["--tag", f"{REPOSITORY}/{name}:{version()}", *extra, str(context)],
    ]


def version() -> str:
    """Return the version of the distribution."""
    text = (versions.ROOT / "components" / "qwenops" / "__init__.py").read_text(encoding="utf-8")
    return text.split('__version__ = "')[1].split('"')[0]


def pins(extras: list[str]) -> str:
    """Return the constraints of an image: the project's, where vLLM is with its own in their place and beside them."""
    paths = [versions.ROOT / "constraints.txt"]
    paths += [versions.ROOT / "infra" / "constraints-vllm.txt"] if "vllm" in extras else []
    lines = [line for path in paths for line in path.read_text(encoding="utf-8").splitlines()]
    pinned = {line.partition("==")[0].lower(): line for line in lines if not line.startswith("#")}
    return "".join(f"{line}\n" for line in pinned.values())


def stage(context: Path, extras: list[str]) -> None:
    """Put into the build context what a Containerfile copies: the pins and the wheel, and no file beside them."""
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(context / "wheel")]
    subprocess.run([*command, str(versions.ROOT)], check=True)
    (context / "constraints.txt").write_text(pins(extras), encoding="utf-8")


def main() -> None:
    """Build the images named on the command line, all of them by default."""
    listed = versions.read()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("images", nargs="*", metavar="IMAGE", help=f"{', '.join(listed['images'])} (default: all)")
    parser.add_argument("--base", help="base image in place of the one in the list, for example a mirror's")
    parser.add_argument("--dry-run", action="store_true", help="print the commands")
    mine, extra = sys.argv[1:], []
    if "--" in mine:
        mine, extra = mine[: mine.index("--")], mine[mine.index("--") + 1 :]
    options = parser.parse_args(mine)
    names = options.images or list(listed["images"])
    for name in names:
        if name not in listed["images"]:
            raise SystemExit(f"no image {name!r}; expected one of {', '.join(listed['images'])}")
        base = options.base or versions.reference(listed["bases"][listed["images"][name]["base"]])
        with tempfile.TemporaryDirectory() as folder:
            command = build_command(
                name, listed, base, Path(folder), _git("rev-parse", "HEAD"), _git("log", "-1", "--format=%ct"), extra
            )
            print(shlex.join(command), flush=True)
            if not options.dry_run:
                stage(Path(folder), listed["images"][name]["extras"])
                subprocess.run(command, check=True, env={**os.environ, "BUILDAH_LAYERS": "true"})
    for name in [] if options.dry_run else names:
        shown = ["buildah", "images", "--noheading", "--format", "{{.Name}}:{{.Tag}} {{.Size}}"]
        subprocess.run([*shown, f"{REPOSITORY}/{name}:{version()}"], check=True)


def _git(*arguments: str) -> str:
    return subprocess.run(
        ["git", "-C", str(versions.ROOT), *arguments], check=True, capture_output=True, text=True
    ).stdout.strip()


if __name__ == "__main__":
    main()
