"""Read `infra/versions.yaml`, for the scripts beside this file."""

from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
FILE = ROOT / "infra" / "versions.yaml"


def read() -> dict[str, Any]:
    """Return the list of versions."""
    return yaml.safe_load(FILE.read_text(encoding="utf-8"))


def reference(image: dict[str, str]) -> str:
    """Return `repository@digest` of an image, or exit when its digest is not recorded."""
    if not image["digest"]:
        raise SystemExit(
            f"{image['repository']}:{image['tag']} has no digest in {FILE.relative_to(ROOT)}; "
            "expected one, so that the same build gives the same image; run `python infra/ci/pin_digests.py` "
            "where the registry can be reached, or name a base with --base"
        )
    return f"{image['repository']}@{image['digest']}"
