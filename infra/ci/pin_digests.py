"""Ask the registries for the digests that `infra/versions.yaml` lacks, and write them there. Needs skopeo.

`--refresh` asks for those it has too, as an image's tag moves when its distribution is patched.
"""

import argparse
import re
import subprocess

import versions

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


def digest_of(repository: str, tag: str) -> str:
    """Return the digest of the image list behind a tag, so that one digest serves every architecture."""
    command = ["skopeo", "inspect", "--format", "{{.Digest}}", f"docker://{repository}:{tag}"]
    found = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    if not _DIGEST.fullmatch(found):
        raise SystemExit(f"{' '.join(command)}: expected a sha256 digest, found {found!r}")
    return found


def pinned(text: str, repository: str, tag: str, digest: str) -> str:
    """Return the file's text with this image's digest; its comments and order stay."""
    line = re.compile(rf'(repository: {re.escape(repository)}, tag: "?{re.escape(tag)}"?, digest: )"[^"]*"')
    changed, count = line.subn(rf'\g<1>"{digest}"', text)
    if count != 1:
        raise SystemExit(f"expected one line for {repository}:{tag} in infra/versions.yaml, found {count}")
    return changed


def main() -> None:
    """Pin every base and service image."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--refresh", action="store_true", help="ask for recorded digests again")
    refresh = parser.parse_args().refresh
    listed = versions.read()
    text = versions.FILE.read_text(encoding="utf-8")
    for image in [*listed["bases"].values(), *listed["services"].values()]:
        if refresh or not image["digest"]:
            digest = digest_of(image["repository"], image["tag"])
            text = pinned(text, image["repository"], image["tag"], digest)
            print(f"{image['repository']}:{image['tag']} {digest}")
    versions.FILE.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
