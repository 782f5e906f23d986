"""Whole data stages in processes of their own: peak memory of the process tree, two workers against one, a million.

Corpora are synthesised by seed from sentences of real text: new documents of known size, one in ten a near copy of an
earlier one (a sentence replaced), one in twenty an exact one. Memory is the sum of proportional set sizes over the
stage's process and all below it, Ray's daemons, workers and object store included, looked at twice a second.
"""

import argparse
import json
import logging
import os
import random
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psutil

_PART_BYTES = 8_000_000
# About the text of one part of `collect` at its default of 128 MB of pages.
_WHOLE_PART_BYTES = 24_000_000
_LOOK_SECONDS = 0.5
_NEAR, _EXACT = 0.1, 0.05
_REMEMBERED = 10_000
# Part of every million that a worker meets before it is timed.
_WARM_PARTS = 2


def synthesised(texts: list[str], count: int, size: int, seed: int) -> Iterator[str]:
    """`count` documents of about `size` bytes from the sentences of `texts`."""
    rng = random.Random(seed)
    pool = [piece.strip() for text in texts for piece in re.split(r"(?<=[.!?])\s+|\n+", text)]
    pool = [piece for piece in dict.fromkeys(pool) if 20 < len(piece) < 400]
    sentences = max(2, round(size / (sum(map(len, pool)) / len(pool) + 1)))
    kept: list[list[str]] = []
    for number in range(count):
        draw = rng.random()
        if kept and draw < _EXACT + _NEAR:
            chosen = list(rng.choice(kept))
            if draw < _NEAR:
                chosen[rng.randrange(len(chosen))] = rng.choice(pool)
        else:
            chosen = rng.choices(pool, k=sentences)
            if len(kept) < _REMEMBERED or number % 10 == 0:
                kept = [*kept[-_REMEMBERED:], chosen] if len(kept) < 2 * _REMEMBERED else kept[_REMEMBERED:]
        yield "\n".join(chosen)


def write_corpus(
    texts: list[str], folder: Path, count: int, size: int, kind: str, part_bytes: int = _PART_BYTES
) -> int:
    """Parts of "documents", or .jsonl files for "lines"; returns the bytes of text."""
    from qwenops.contracts.document import documents_from_rows, write_part

    total = number = 0
    rows: list[dict[str, Any]] = []
    held = 0
    common = {"source": "s", "url": "", "license": "CC0-1.0", "lang_score": 1.0}
    buckets = (("web", "en"), ("prose", "en"), ("web", "de"), ("math", "en"))

    def flush() -> None:
        nonlocal number, held
        if kind == "documents":
            write_part(documents_from_rows(rows), folder / "documents" / f"part-{number:05}.parquet")
        else:
            folder.mkdir(parents=True, exist_ok=True)
            lines = "".join(json.dumps({"text": row["text"]}) + "\n" for row in rows)
            (folder / f"part-{number:05}.jsonl").write_text(lines, encoding="utf-8")
        number, held = number + 1, 0
        rows.clear()

    for place, text in enumerate(synthesised(texts, count, size, 5)):
        domain, lang = buckets[place % len(buckets)]
        split = "heldout" if place % 100 == 99 else "train"
        row = {"id": f"{place:09}", "text": text, "domain": domain, "lang": lang, "split": split}
        rows.append(common | row | {"quality": place % 97 / 97})
        held += len(text.encode())
        total += len(text.encode())
        if held >= part_bytes:
            flush()
    if rows:
        flush()
    return total


class Peak:
    """A process tree and the most memory it held."""

    def __init__(self, command: list[str]) -> None:
        began = time.monotonic()
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.bytes = 0
        while process.poll() is None:
            self.bytes = max(self.bytes, _tree_bytes(process.pid))
            time.sleep(_LOOK_SECONDS)
        self.seconds = time.monotonic() - began
        output, errors = process.communicate()
        if process.returncode:
            raise SystemExit(errors[-3000:])
        self.facts: dict[str, Any] = json.loads(output.splitlines()[-1])


def _tree_bytes(pid: int) -> int:
    try:
        tree = [pid, *(child.pid for child in psutil.Process(pid).children(recursive=True))]
    except psutil.Error:
        return 0
    total = 0
    for one in tree:
        try:
            lines = Path(f"/proc/{one}/smaps_rollup").read_text().splitlines()
            total += 1024 * int(next(line.split()[1] for line in lines if line.startswith("Pss:")))
        except (OSError, StopIteration):
            continue
    return total


def _child(*arguments: object) -> list[str]:
    return [sys.executable, str(Path(__file__)), *map(str, arguments)]


def memory(texts: list[str], options: argparse.Namespace) -> None:
    """Peak memory of a whole stage, Ray included, over a corpus and over a larger one."""
    for stage in options.stages:
        peaks: list[Peak] = []
        for megabytes in options.megabytes:
            with TemporaryDirectory() as folder:
                count = round(megabytes * 1e6 / options.document_bytes)
                kind = "lines" if stage in ("collect", "ingest") else "documents"
                source = Path(folder) / "in"
                size = write_corpus(texts, source, count, options.document_bytes, kind)
                if stage == "ingest":
                    Peak(_child("stage", "collect", source, Path(folder) / "pages"))
                    source = Path(folder) / "pages" / "out"
                peaks.append(Peak(_child("stage", stage, source, Path(folder) / "out")))
                print(
                    f"  {stage:13} {size / 1e6:6.0f} MB, {count} documents: {peaks[-1].bytes >> 20:5} MiB at most,"
                    f" {peaks[-1].seconds:5.0f} s, load {os.getloadavg()[0]:.1f}; {peaks[-1].facts['counts']}",
                    flush=True,
                )
        growth = peaks[-1].bytes / peaks[0].bytes - 1
        print(f"  {stage:13} {options.megabytes[-1] / options.megabytes[0]:.0f} times the input: {growth:+.0%}")


def workers(texts: list[str], options: argparse.Namespace) -> None:
    """Seconds of parts on two Ray workers and on one, warm; the same parts, one thread in each worker."""
    with TemporaryDirectory() as folder:
        count = round(options.megabytes[0] * 1e6 / options.document_bytes)
        source = Path(folder) / "in"
        size = write_corpus(texts, source, count, options.document_bytes, "documents", _WHOLE_PART_BYTES)
        for work in options.works:
            spent = []
            for number in (1, 2):
                command = _child("parts", work, source, Path(folder) / f"{work}-{number}", number)
                # Without `Peak`: looking at the memory of two workers would take a tenth of a core from them.
                done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
                spent.append(json.loads(done.stdout.splitlines()[-1])["seconds"])
            print(
                f"  {work:13} {size / 1e6:.0f} MB: 1 worker {spent[0]:6.1f} s, 2 workers {spent[1]:6.1f} s:"
                f" {spent[0] / spent[1]:.2f} times as fast; load {os.getloadavg()[0]:.1f}",
                flush=True,
            )


def million(texts: list[str], options: argparse.Namespace) -> None:
    """Deduplication of `--count` documents from start to published parts: minutes and peak memory."""
    with TemporaryDirectory() as folder:
        began = time.monotonic()
        size = write_corpus(texts, Path(folder) / "in", options.count, options.document_bytes, "documents")
        print(f"  {options.count} documents, {size / 1e6:.0f} MB, synthesised in {time.monotonic() - began:.0f} s")
        peak = Peak(_child("stage", "dedup", Path(folder) / "in", Path(folder) / "out"))
        print(
            f"  {peak.seconds / 60:.1f} minutes, {peak.bytes >> 20} MiB at most, load {os.getloadavg()[0]:.1f};"
            f" {peak.facts['counts']}; planted {peak.facts['metrics']}"
        )
        for name, spent in peak.facts["phases"].items():
            print(f"    {name:12} {spent:7.1f} s")


def _run_stage(stage: str, source: Path, out: Path) -> dict[str, Any]:
    from qwenops.platform.context import RunContext
    from qwenops.platform.stage.handle import Stage

    context = RunContext(str(out / "store"), str(out / "events"), str(out / "cache"))
    handle = Stage(stage, 7, context, out / "out", out / "scratch")
    for folder in (handle.out, handle.scratch):
        folder.mkdir(parents=True)
    match stage:
        case "collect":
            from qwenops.data.collect.config import CollectConfig, FolderSource
            from qwenops.data.collect.run import run as collect

            source_ = FolderSource(name="own", path=str(source), license="CC0-1.0")
            collect(CollectConfig(sources=(source_,), part_bytes=_PART_BYTES), stage=handle)
        case "ingest":
            from qwenops.data.ingest.config import IngestConfig
            from qwenops.data.ingest.run import run as ingest

            ingest(IngestConfig(), pages=source, stage=handle)
        case "dedup":
            from qwenops.data.dedup.config import DedupConfig
            from qwenops.data.dedup.run import run as dedup

            dedup(DedupConfig(), documents=source, stage=handle)
        case "decontaminate":
            from qwenops.data.decontaminate.config import DecontaminateConfig
            from qwenops.data.decontaminate.run import run as decontaminate

            decontaminate(DecontaminateConfig(sets=("continuation",)), documents=source, stage=handle)
        case "quality":
            from qwenops.data.quality.config import QualityConfig
            from qwenops.data.quality.run import run as quality

            quality(QualityConfig(), documents=source, stage=handle)
        case "tokens":
            _tokens(source, handle)
    return {"counts": handle.counts, "metrics": _planted(handle.metrics), "phases": _phases(handle.scratch)}


def _tokens(source: Path, handle: Any) -> None:
    """The mixture without proxies, then the shards; the tokenizer is of a size that trains in seconds."""
    from dataclasses import replace

    from qwenops.contracts.document import iter_documents
    from qwenops.data.mixture.config import MixtureConfig
    from qwenops.data.mixture.run import run as mixture
    from qwenops.data.tokenizer.bpe import save, train
    from qwenops.data.tokens.config import TokensConfig
    from qwenops.data.tokens.run import run as tokens

    rows = iter_documents(source, ["text"])
    vocabulary, chosen = handle.scratch.parent / "tokenizer", handle.scratch.parent / "mixture"
    save(train((next(rows)["text"] for _ in range(500)), 4096, 2), vocabulary)
    chosen.mkdir()
    config = MixtureConfig(proxies=0, sample_bytes=2_000_000)
    mixture(config, documents=source, tokenizer=vocabulary, stage=replace(handle, out=chosen))
    tokens(TokensConfig(), documents=source, tokenizer=vocabulary, mixture=chosen, stage=handle)


def _planted(metrics: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in metrics.items() if name.startswith("planted.")}


def _phases(scratch: Path) -> dict[str, float]:
    """Seconds from the first to the last finished piece of each folder of pieces, with the wait before the first."""
    found: dict[str, float] = {}
    ends = {
        folder.parent.relative_to(scratch).as_posix(): max(path.stat().st_mtime for path in folder.iterdir())
        for folder in scratch.rglob(".summaries")
        if any(folder.iterdir())
    }
    last = scratch.parent.joinpath("cache").stat().st_mtime if (scratch.parent / "cache").exists() else None
    for name, end in sorted(ends.items(), key=lambda item: item[1]):
        found[name] = end - last if last else 0.0
        last = end
    return found


def _run_parts(work: str, source: Path, out: Path, number: int) -> dict[str, Any]:
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    import ray

    from qwenops.contracts.document import part_paths
    from qwenops.platform.context import RunContext
    from qwenops.platform.ray.documents import map_parts

    ray.init(num_cpus=number, object_store_memory=200_000_000, include_dashboard=False, logging_level=logging.ERROR)
    context = RunContext(str(out), str(out), str(out))
    parts, (function, columns) = part_paths(source), _work(work, source, out)
    map_parts(context, parts[:_WARM_PARTS], function, out / "warm", columns=columns)
    began = time.monotonic()
    map_parts(context, parts, function, out / "timed", columns=columns)
    return {"seconds": time.monotonic() - began}


def _keys_of_part(table: Any, config: Any) -> Any:
    from qwenops.data.dedup.duplicates import document_keys
    from qwenops.platform.ray.documents import PartResult

    return PartResult({"keys": document_keys(table, config)})


def _work(name: str, source: Path, out: Path) -> tuple[Any, list[str] | None]:
    from functools import partial

    from qwenops.contracts.document import iter_documents
    from qwenops.data.buckets import Sources
    from qwenops.data.decontaminate.config import DecontaminateConfig
    from qwenops.data.decontaminate.run import _matches_of_part
    from qwenops.data.dedup.config import DedupConfig
    from qwenops.data.quality.config import QualityConfig
    from qwenops.data.quality.passes import rule_part
    from qwenops.data.tokenizer.bpe import save, train
    from qwenops.data.tokens.encode import encode_part
    from qwenops.data.tokens.run import _COLUMNS
    from qwenops.tasks.evalsets import leaks_of, load

    out.mkdir(parents=True, exist_ok=True)
    match name:
        case "quality":
            return partial(rule_part, config=QualityConfig()), None
        case "dedup":
            return partial(_keys_of_part, config=DedupConfig()), ["id", "text", "quality"]
        case "decontaminate":
            leaks = out / "leaks.json"
            leaks.write_text(json.dumps(leaks_of({"continuation": load("continuation", out)})))
            return partial(_matches_of_part, config=DecontaminateConfig(), leaks=leaks), ["id", "text"]
        case _:
            rows = iter_documents(source, ["text"])
            save(train((next(rows)["text"] for _ in range(500)), 4096, 2), out / "tokenizer")
            return partial(encode_part, tokenizer=out / "tokenizer", batch_documents=256, sources=Sources()), _COLUMNS


if __name__ == "__main__":
    what, name, source, out, *rest = sys.argv[1:]
    facts = (
        _run_stage(name, Path(source), Path(out))
        if what == "stage"
        else _run_parts(name, Path(source), Path(out), int(rest[0]))
    )
    print(json.dumps(facts))
