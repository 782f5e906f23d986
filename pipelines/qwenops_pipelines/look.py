"""What `qwenops look SOURCE` says: the first documents of a source as a run would read them, and what it would drop."""

import re
import shutil
import textwrap
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa

from qwenops.contracts.document import PAGE_SCHEMA
from qwenops.data.collect.config import CollectConfig, FolderSource, HubSource, Source
from qwenops.data.collect.pages import Page, read_source
from qwenops.data.ingest.config import IngestConfig
from qwenops.data.ingest.documents import ingest_pages
from qwenops.errors import RecipeError
from qwenops.platform.storage.remote_files import is_address
from qwenops.recipe.codec import canonical, decode, read_json

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+(@[\w./-]+)?")
_LINES = 3
# Pages that are extracted at once: enough to go fast, few enough to be held.
_AT_ONCE = 50


@dataclass
class Preview:
    """What was read.

    Attributes:
        shown: The first documents, rows of `contracts.document.DOCUMENT_SCHEMA`.
        documents: How many there were.
        pages: Files and records that were read for them, dropped ones included.
        dropped: Reason to how many.
        examples: Reason to the address of the first.
        is_whole: Whether the source ended here.
    """

    shown: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    documents: int = 0
    pages: int = 0
    dropped: Counter[str] = field(default_factory=Counter[str])
    examples: dict[str, str] = field(default_factory=dict[str, str])
    is_whole: bool = True


def find_source(text: str, config: CollectConfig) -> Source:
    """The source that `text` means: one of the recipe's by its name, JSON text of one, a path or address, or a Hub id.

    Raises:
        RecipeError: it is none of them.
    """
    for source in config.sources:
        if source.name == text:
            return source
    if text.lstrip().startswith("{"):
        plain = {"name": "mine"} | read_json(text, "the source")
        return decode(CollectConfig, canonical({"sources": [plain]}), where="collect").sources[0]
    if is_address(text) or (text and Path(text).expanduser().exists()):
        return FolderSource(name="mine", path=text)
    if _HUB_ID.fullmatch(text):
        dataset, _, revision = text.partition("@")
        return HubSource(name="mine", dataset=dataset, revision=revision or "main")
    raise RecipeError(
        "no such source",
        expected=f"one of {', '.join(source.name for source in config.sources)}, a folder or file, an address,"
        " or a data set of the Hub as owner/name",
        found=repr(text),
        action="check the name and the path",
    )


def look(source: Source, config: CollectConfig, ingest: IngestConfig, rows: int, most_pages: int) -> Preview:
    """Read up to `most_pages` pages of `source` as the stages collect and ingest do, in their order.

    Raises:
        PlatformError: the source cannot be reached.
    """
    found = Preview()
    with TemporaryDirectory() as cache:
        pages = read_source(source, config, Path(cache))
        for batch in _batches(islice(pages, most_pages)):
            found.pages += len(batch)
            for page in batch:
                if page.reason:
                    _drop(found, page.reason, page.url)
            # Of a page's fields the schema takes its own; a page that is kept has no reason.
            kept = pa.Table.from_pylist([asdict(page) for page in batch if not page.reason], schema=PAGE_SCHEMA)
            documents, dropped, _ = ingest_pages(kept, ingest)
            for row in dropped.to_pylist():
                _drop(found, row["reason"], row["url"])
            found.documents += documents.num_rows
            found.shown += documents.slice(0, rows - len(found.shown)).to_pylist()
        found.is_whole = next(pages, None) is None
    return found


def describe(source: Source, found: Preview) -> str:
    """The documents, one below the other, and the account of all pages, in the width of the terminal."""
    width = max(shutil.get_terminal_size((100, 24)).columns, 40)
    lines: list[str] = []
    for number, row in enumerate(found.shown, 1):
        lines.append(f"{number}. {row['url']}  ({row['lang']}, {row['domain']}, {len(row['text']):,} characters)")
        begin = " ".join(row["text"][: _LINES * width].split())
        lines += [f"   {line}" for line in textwrap.wrap(begin, width - 3)[:_LINES]]
        lines.append("")
    of = "all" if found.is_whole else "the first"
    lines.append(f"{source.kind} source: {of} {found.pages:,} pages, {found.documents:,} documents")
    for reason, count in found.dropped.most_common():
        lines.append(f"  {count:,} dropped, {reason}: such as {found.examples[reason]}")
    return "\n".join(lines)


def _batches(pages: Iterator[Page]) -> Iterator[list[Page]]:
    while batch := list(islice(pages, _AT_ONCE)):
        yield batch


def _drop(found: Preview, reason: str, address: str) -> None:
    found.dropped[reason] += 1
    found.examples.setdefault(reason, address)
