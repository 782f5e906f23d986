"""Real text in parts, the data stages as functions of (inputs, stage), and a thread that kills their workers."""

import contextlib
import random
import threading
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import psutil

from qwenops.contracts.document import PAGE_SCHEMA, documents_from_rows, write_part
from qwenops.data.collect.environment import docstring_page, python_files
from qwenops.data.decontaminate.config import DecontaminateConfig
from qwenops.data.decontaminate.run import run as decontaminate
from qwenops.data.dedup.config import DedupConfig
from qwenops.data.dedup.run import run as dedup
from qwenops.data.ingest.config import IngestConfig
from qwenops.data.ingest.run import run as ingest
from qwenops.data.quality.config import ClassifierConfig, QualityConfig
from qwenops.data.quality.run import run as quality
from qwenops.data.tokens.config import TokensConfig
from qwenops.data.tokens.run import run as tokens
from qwenops.platform.stage.handle import Stage

_TASK = "ray::Map"


def texts(count: int) -> list[str]:
    """Docstrings of the standard library, in a fixed order; every fifth text is one that came before."""
    found, rng = _docstrings(), random.Random(0)
    taken = rng.sample(found, min(len(found), count - count // 5))
    return taken + rng.choices(taken, k=count - len(taken))


@cache
def _docstrings() -> list[str]:
    found = [docstring_page(path.read_text("utf-8", "replace"), name) for name, path in python_files("stdlib")]
    return [text[:8000] for text in found if text]


def write_pages(folder: Path, parts: int, count: int) -> Path:
    """Parts of pages with `texts`."""
    rows = [
        {
            "id": f"p{number:04}", "source": "s", "domain": "prose", "url": f"u{number}", "license": "PSF-2.0",
            "fetched_at": "2026-01-01", "mime": "text/plain", "lang_hint": "en", "record_id": "", "raw": text.encode(),
        }
        for number, text in enumerate(texts(count))
    ]  # fmt: skip
    for part in range(parts):
        table = PAGE_SCHEMA.empty_table().from_pylist(rows[part::parts], schema=PAGE_SCHEMA)
        write_part(table, folder / "pages" / f"part-{part:05}.parquet")
    return folder


def document_rows(count: int) -> list[dict]:
    """Rows of documents with `texts`, in three buckets, one in ten held out."""
    kinds = (("prose", "en"), ("web", "de"), ("code", "code"))
    return [
        {
            "id": f"d{number:04}", "text": text, "source": "s", "domain": kinds[number % 3][0], "url": "",
            "license": "PSF-2.0", "lang": kinds[number % 3][1], "lang_score": 1.0, "quality": number % 7 / 7,
            "split": "heldout" if number % 10 == 9 else "train",
        }
        for number, text in enumerate(texts(count))
    ]  # fmt: skip


def write_documents(folder: Path, rows: list[dict], parts: int) -> Path:
    """Parts of documents; row n lies in part n modulo `parts`."""
    for part in range(parts):
        write_part(documents_from_rows(rows[part::parts]), folder / "documents" / f"part-{part:05}.parquet")
    return folder


def run_stage(name: str, inputs: dict[str, Path], stage: Stage) -> None:
    """Run a data stage that works part by part, with settings that suit a small corpus."""
    match name:
        case "ingest":
            ingest(IngestConfig(extractor="resiliparse"), pages=inputs["pages"], stage=stage)
        case "quality":
            classifier = ClassifierConfig(num_features=1 << 12, num_documents=400, num_characters=500)
            quality(QualityConfig(classifier=classifier), documents=inputs["documents"], stage=stage)
        case "dedup":
            dedup(DedupConfig(planted_documents=40), documents=inputs["documents"], stage=stage)
        case "decontaminate":
            config = DecontaminateConfig(sets=("continuation",), planted_items=20)
            decontaminate(config, documents=inputs["documents"], stage=stage)
        case _:
            tokens(TokensConfig(checked_documents=10), stage=stage, **inputs)


@contextlib.contextmanager
def killing_workers(times: int) -> Iterator[list[int]]:
    """Kill the first `times` workers of this process that are seen at work, forks or Ray's; yields their ids."""
    killed: list[int] = []
    stopped = threading.Event()
    me = psutil.Process()
    known = {child.pid for child in me.children()}

    def look() -> None:
        while not stopped.is_set() and len(killed) < times:
            for process in me.children(recursive=True):
                with contextlib.suppress(psutil.Error):
                    if process.pid not in {*known, *killed} and len(killed) < times and _is_at_work(process, me):
                        process.kill()
                        killed.append(process.pid)
            time.sleep(0.001)

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield killed
    finally:
        stopped.set()
        thread.join()


def _is_at_work(process: psutil.Process, parent: psutil.Process) -> bool:
    command = process.cmdline()
    return command == parent.cmdline() or any(part.startswith(_TASK) for part in command[:1])
