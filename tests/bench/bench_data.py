"""Speed and accuracy of the data engine, each beside the tool it is measured against, in one process on one core.

    python tests/bench/bench_data.py [rules extraction path minhash duplicates languages tokens memory workers
        million corpus] [--texts FILE ...] [--articles FOLDER] [--documents 500] [--megabytes 100 1000]
        [--count 1000000] [--recipe tiny] [--checkout FOLDER ...]

`--texts` are .txt, .jsonl (field "text" or "body") or their .gz; without it the docstrings of installed packages are
the corpus. `--articles` is a checkout of scrapinghub/article-extraction-benchmark. Times are CPU seconds of this
process, because other programs only ever add wall time; those of whole stages (`memory` to `corpus`) are wall time.
datatrove and datasketch are yardsticks: a side that is not installed is left out with a sentence (`pip install
datatrove spacy nltk`).
"""

import argparse
import gzip
import json
import os
import platform
import random
import re
import resource
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from zipfile import ZipFile

from data_corpus import corpus
from data_scale import memory, million, workers

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

_DEFAULT_PACKAGES = ("numpy", "pandas", "scipy", "sklearn", "torch", "transformers")
_SPLIT_LINES = (3, 40)


def read_texts(paths: list[Path], count: int) -> list[str]:
    """Up to `count` documents; running text is cut into documents of 3 to 40 lines."""
    found: list[str] = []
    for path in paths:
        found += list(_documents(path))
    if not paths:
        from qwenops.data.collect.environment import docstring_page, python_files

        for package in _DEFAULT_PACKAGES:
            found += [docstring_page(path.read_text("utf-8", "replace"), name) for name, path in python_files(package)]
    found = [text for text in found if text.strip()]
    return random.Random(0).sample(found, min(count, len(found)))


def _documents(path: Path) -> Iterator[str]:
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rt", encoding="utf-8", errors="replace") as stream:
        if ".jsonl" in path.suffixes:
            for line in stream:
                row = json.loads(line)
                yield row.get("text") or row.get("body") or ""
            return
        lines, rng = stream.read().split("\n"), random.Random(1)
    place = 0
    while place < len(lines):
        size = rng.randint(*_SPLIT_LINES)
        yield "\n".join(lines[place : place + size])
        place += size


def seconds(work: Callable[[], object], repeats: int = 1) -> float:
    """The least CPU seconds of a few runs."""
    times = []
    for _ in range(repeats):
        began = time.process_time()
        work()
        times.append(time.process_time() - began)
    return min(times)


def rules(texts: list[str], _: argparse.Namespace) -> None:
    """Gopher, Gopher repetition, C4 and FineWeb against datatrove's four filters, default thresholds on both sides."""
    from qwenops.data.quality.config import C4Config, QualityConfig
    from qwenops.data.quality.rules import apply_rules

    config = QualityConfig(c4=C4Config(line_end="terminal"))
    columns = (["en"] * len(texts), ["web"] * len(texts))
    apply_rules(texts[:20], columns[0][:20], columns[1][:20], config)
    judged = apply_rules(texts, *columns, config)
    ours = seconds(lambda: apply_rules(texts, *columns, config), repeats=3)
    print(f"  ours       {len(texts) / ours:8.0f} documents/s  kept {judged.reasons.count('')} of {len(texts)}")
    try:
        from datatrove.data import Document  # pyright: ignore[reportMissingImports]
        from datatrove.pipeline import filters  # pyright: ignore[reportMissingImports]
    except ImportError:
        print("  datatrove is not installed")
        return
    names = ("GopherRepetitionFilter", "GopherQualityFilter", "C4QualityFilter", "FineWebQualityFilter")
    family = [getattr(filters, name)() for name in names]
    for one in family:
        one.filter(Document(text="Some words that load the tokenizer.", id="0"))
    kept: list[str] = []

    def chain() -> None:
        for text in texts:
            document = Document(text=text, id="0")
            answers = (one.filter(document) for one in family)
            kept.append(next((answer[1] for answer in answers if answer is not True), ""))

    theirs = seconds(chain)
    print(
        f"  datatrove  {len(texts) / theirs:8.0f} documents/s  kept {kept.count('')}"
        f"   ours is {theirs / ours:.1f} times as fast"
    )
    differ = [n for n, (a, b) in enumerate(zip(kept, judged.reasons, strict=True)) if bool(a) != bool(b)]
    print(f"  same decision on {1 - len(differ) / len(texts):.2%}; the other {len(differ)} by cause:")
    causes = Counter((_cause(texts[n], judged.reasons[n], family), kept[n], judged.reasons[n]) for n in differ)
    for (cause, a, b), count in causes.most_common():
        print(f"    {count:4} {cause}: theirs {a or 'kept'}, ours {b or 'kept'}")


def _cause(text: str, reason: str, family: list[Any]) -> str:
    """Why a decision differs: blank lines at the ends, words cut otherwise, or a rule that reads otherwise."""
    from datatrove.data import Document  # pyright: ignore[reportMissingImports]
    from datatrove.utils.text import split_into_words  # pyright: ignore[reportMissingImports]

    from qwenops.data.quality.batch import Batch

    document = Document(text="\n".join(line for line in text.split("\n") if line.strip()), id="0")
    if all(one.filter(document) is True for one in family) == (reason == ""):
        return "blank lines, which count as lines and as repeated ones there"
    batch = Batch([text], "marks")
    words = [text[start - 1 : end - 1] for start, end in zip(batch.words.starts, batch.words.ends, strict=True)]
    return "the rule itself" if words == split_into_words(text, "eng") else "words cut otherwise"


def _article_pages(folder: Path) -> dict[str, bytes]:
    return {
        path.name.removesuffix(".html.gz"): gzip.decompress(path.read_bytes())
        for path in sorted((folder / "html").glob("*.html.gz"))
    }


def extraction(_: list[str], options: argparse.Namespace) -> None:
    """F1 of 4-word shingles on the article benchmark, and pages a second."""
    from qwenops.data.ingest.main_text import extract
    from qwenops.data.ingest.text import decode

    if not options.articles:
        print("  needs --articles")
        return
    truth = json.loads((options.articles / "ground-truth.json").read_text(encoding="utf-8"))
    pages = {name: decode(raw) for name, raw in _article_pages(options.articles).items()}
    speeds: dict[str, float] = {}
    for extractor in ("combined", "resiliparse", "trafilatura"):
        found: dict[str, str] = {}
        spent = seconds(
            lambda found=found, by=extractor: found.update({n: extract(html, by) for n, html in pages.items()}), 2
        )
        marks = [_shares(truth[name]["articleBody"], found[name]) for name in pages]
        precision, recall = (sum(values) / len(values) for values in zip(*marks, strict=True))
        score = 2 * precision * recall / (precision + recall)
        speeds[extractor] = len(pages) / spent
        print(
            f"  {extractor:12} F1 {score:.4f}  precision {precision:.4f}  recall {recall:.4f}"
            f"  {speeds[extractor]:7.1f} pages/s  ({len(pages)} pages)"
        )
    ratio = {name: speeds["combined"] / speeds[name] for name in ("trafilatura", "resiliparse")}
    print(
        f"  combined is {ratio['trafilatura']:.1f} times as fast as trafilatura,"
        f" {ratio['resiliparse']:.2f} times as resiliparse"
    )


def path(_: list[str], options: argparse.Namespace) -> None:
    """Page to scored document: ingest, rules and classifier against datatrove's extractor and filters."""
    import numpy as np
    import pyarrow as pa

    from qwenops.contracts.document import PAGE_SCHEMA
    from qwenops.data.ingest.config import IngestConfig
    from qwenops.data.ingest.documents import ingest_pages
    from qwenops.data.quality.classifier import NUM_FOLDS, Model
    from qwenops.data.quality.config import QualityConfig
    from qwenops.data.quality.rules import apply_rules

    if not options.articles:
        print("  needs --articles")
        return
    raws = _article_pages(options.articles)
    common = {name: "" for name in PAGE_SCHEMA.names} | {"domain": "web", "mime": "text/html"}
    pages = pa.Table.from_pylist([common | {"id": n, "raw": raw} for n, raw in raws.items()], schema=PAGE_SCHEMA)
    config = QualityConfig()
    # Any weights cost the same.
    model = Model(np.zeros((NUM_FOLDS, config.classifier.num_features), np.float32), np.zeros(NUM_FOLDS, np.float32))
    kept: list[int] = []

    def ours() -> None:
        documents, *_ = ingest_pages(pages, IngestConfig())
        texts, languages, domains = (documents[name].to_pylist() for name in ("text", "lang", "domain"))
        judged = apply_rules(texts, languages, domains, config)
        ids = documents["id"].to_pylist()
        left = [n for n, reason in enumerate(judged.reasons) if not reason]
        model.score([ids[n] for n in left], [judged.texts[n] for n in left], config.classifier)
        kept.append(len(left))

    ours()
    spent = seconds(ours, 2)
    print(f"  ours       {len(raws) / spent:7.1f} pages/s  kept {kept[-1]} of {len(raws)}")
    try:
        from datatrove.data import Document  # pyright: ignore[reportMissingImports]
        from datatrove.pipeline import filters  # pyright: ignore[reportMissingImports]
        from datatrove.pipeline.extractors import Trafilatura  # pyright: ignore[reportMissingImports]
    except ImportError:
        print("  datatrove is not installed")
        return
    extractor = Trafilatura(favour_precision=True)
    names = ("GopherRepetitionFilter", "GopherQualityFilter")
    family = [getattr(filters, name)() for name in names]
    family += [filters.C4QualityFilter(filter_no_terminal_punct=False), filters.FineWebQualityFilter()]
    passed: list[int] = []

    def theirs() -> None:
        texts = [extractor.extract(raw.decode("utf-8", "replace")) or "" for raw in raws.values()]
        documents = [Document(text=text, id="0") for text in texts]
        passed.append(sum(all(one.filter(document) is True for one in family) for document in documents))

    family[0].filter(Document(text="Some words that load the tokenizer.", id="0"))
    other = seconds(theirs)
    print(
        f"  datatrove  {len(raws) / other:7.1f} pages/s  kept {passed[-1]}; no language, no classifier"
        f"   ours is {other / spent:.1f} times as fast"
    )


def _shares(truth: str, found: str) -> tuple[float, float]:
    wanted, got = _shingle_counts(truth), _shingle_counts(found)
    common = (wanted & got).total()
    return common / max(got.total(), 1), common / max(wanted.total(), 1)


def _shingle_counts(text: str) -> Counter[tuple[str, ...]]:
    words = re.findall(r"\w+", text)
    return Counter(tuple(words[i : i + 4]) for i in range(max(1, len(words) - 3)))


def minhash(texts: list[str], _: argparse.Namespace) -> None:
    """Signatures of 120 permutations over 5-word shingles, shingling included."""
    from qwenops.data.dedup.config import DedupConfig
    from qwenops.data.dedup.minhash import band_keys
    from qwenops.tasks.overlap import words

    config = DedupConfig()
    band_keys(texts[:20], config)
    ours = seconds(lambda: band_keys(texts, config), repeats=3)
    print(f"  ours       {len(texts) / ours:8.0f} documents/s")
    try:
        from datasketch import MinHash
    except ImportError:
        print("  datasketch is not installed")
        return

    def theirs() -> None:
        for text in texts:
            tokens = words(text)
            count = max(1, len(tokens) - config.word_shingle + 1)
            grams = [" ".join(tokens[i : i + config.word_shingle]).encode() for i in range(count)]
            MinHash(num_perm=config.hashes).update_batch(grams)

    spent = seconds(theirs)
    print(f"  datasketch {len(texts) / spent:8.0f} documents/s   ours is {spent / ours:.1f} times as fast")


def duplicates(texts: list[str], _: argparse.Namespace) -> None:
    """Recall and precision: planted pairs of known similarity, and every pair of the corpus by brute force."""
    from qwenops.data.dedup.clusters import candidate_pairs
    from qwenops.data.dedup.config import DedupConfig
    from qwenops.data.dedup.minhash import band_keys, jaccard, shingles
    from qwenops.data.dedup.planted import perturb, plant_and_score

    config, rng = DedupConfig(), random.Random(3)
    score = plant_and_score(texts, config, seed=3)
    print(
        f"  planted     recall {score.recall:.4f} of {score.copies}  precision {score.precision:.4f},"
        f" {score.misses} near misses"
    )
    some = [text[:2000] for text in texts[:200]]
    some += [copy for text in some[:100] if (copy := perturb(text, 0.5, 1.0, config, rng))]
    sets = [shingles(text, config) for text in some]
    pairs = [(a, b) for b in range(len(some)) for a in range(b)]
    near = {pair for pair in pairs if jaccard(sets[pair[0]], sets[pair[1]]) >= config.jaccard}
    candidates = candidate_pairs(band_keys(some, config).T).tolist()
    found = {(a, b) for a, b in candidates if jaccard(sets[a], sets[b]) >= config.jaccard}
    recall, precision = len(found & near) / max(len(near), 1), len(found & near) / max(len(found), 1)
    print(f"  brute force recall {recall:.4f} of {len(near)}  precision {precision:.4f}, {len(pairs)} pairs compared")


# Names of the declaration's files in NLTK's `udhr2`, by the code that `ingest` gives the language.
_DECLARATIONS = {
    "ar": "arb", "bn": "ben", "ceb": "ceb", "cs": "ces", "de": "deu", "en": "eng", "es": "spa", "fa": "pes_1",
    "fr": "fra", "he": "heb", "hi": "hin", "id": "ind", "it": "ita", "ja": "jpn", "km": "khm", "ko": "kor", "lo": "lao",
    "ms": "mly_latn", "my": "mya", "nl": "nld", "pl": "pol", "pt": "por_BR", "ru": "rus", "th": "tha", "tl": "tgl",
    "tr": "tur", "ur": "urd", "vi": "vie", "zh": "cmn_hans",
}  # fmt: skip


def languages(_: list[str], options: argparse.Namespace) -> None:
    """Share of paragraphs of the human rights declaration whose language is found, by language."""
    from qwenops.data.ingest.config import IngestConfig
    from qwenops.data.ingest.language import identify_language

    if options.declarations is None:
        print("  skipped: --declarations udhr2.zip is not given")
        return
    accuracies: list[float] = []
    with ZipFile(options.declarations) as archive:
        for code in IngestConfig().languages:
            name = f"udhr2/{_DECLARATIONS[code]}.txt"
            if name not in archive.namelist():
                print(f"  {code:4} no text")
                continue
            lines = (line.strip() for line in archive.read(name).decode().splitlines())
            paragraphs = [line for line in lines if len(line) >= 60]
            found = Counter(identify_language(text)[0] for text in paragraphs)
            wrong = ", ".join(f"{other or 'none'} {count}" for other, count in found.most_common(4) if other != code)
            accuracies.append(found[code] / len(paragraphs))
            print(f"  {code:4} {accuracies[-1]:6.1%} of {len(paragraphs):3}   {wrong}")
    print(f"  mean over {len(accuracies)} languages {sum(accuracies) / len(accuracies):.1%}")


def tokens(texts: list[str], _: argparse.Namespace) -> None:
    """The stage's encoding against the tokenizers library driven directly, one thread each."""
    import pyarrow as pa

    from qwenops.data.tokenizer.bpe import save, train
    from qwenops.data.tokens.encode import encode_documents, load_encoder

    with TemporaryDirectory() as folder:
        save(train(texts, 4096, 2), Path(folder))
        encoder = load_encoder(Path(folder))
    size = sum(len(text.encode()) for text in texts) / 1e6
    names = {"id": [str(n) for n in range(len(texts))], "text": texts}
    table = pa.table(
        names
        | {
            name: [value] * len(texts)
            for name, value in (("source", "s"), ("domain", "web"), ("lang", "en"), ("split", "train"))
        }
    )

    def direct() -> None:
        for start in range(0, len(texts), 256):
            encoder.encode_batch_fast(texts[start : start + 256], add_special_tokens=False)

    direct()
    theirs = seconds(direct, repeats=2)
    ours = seconds(lambda: encode_documents(table, encoder, 256), repeats=2)
    print(f"  tokenizers {size / theirs:6.2f} MB/s   stage {size / ours:6.2f} MB/s   overhead {ours / theirs - 1:.1%}")


_SECTIONS = {
    f.__name__: f
    for f in (rules, extraction, path, minhash, duplicates, languages, tokens, memory, workers, million, corpus)
}


def main() -> None:
    """Run the chosen sections, all of them without an argument."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sections", nargs="*", choices=[*_SECTIONS, []], help="which to run")
    parser.add_argument("--texts", nargs="*", type=Path, default=[])
    parser.add_argument("--articles", type=Path)
    parser.add_argument("--declarations", type=Path, help="NLTK's udhr2.zip, for `languages`")
    parser.add_argument("--documents", type=int, default=500)
    stages = ["collect", "ingest", "quality", "dedup", "decontaminate", "tokens"]
    parser.add_argument("--stages", nargs="*", default=stages, help="stages of `memory`")
    parser.add_argument("--works", nargs="*", default=["quality", "dedup", "decontaminate", "tokens"])
    parser.add_argument("--megabytes", nargs="*", type=int, default=[100, 1000], help="corpora of `memory`")
    parser.add_argument("--document-bytes", type=int, default=3000, help="of a synthesised document")
    parser.add_argument("--count", type=int, default=1_000_000, help="documents of `million`")
    parser.add_argument("--recipe", default="tiny", help="whose data stages `corpus` runs")
    parser.add_argument("--checkout", nargs="*", type=Path, default=[], help="other working trees for `corpus`")
    options = parser.parse_args()
    # Whole runs collect their own text.
    texts = [] if options.sections == [corpus.__name__] else read_texts(options.texts, options.documents)
    size = sum(len(text.encode()) for text in texts) / 1e6
    names = ", ".join(path.name for path in options.texts) or "docstrings of " + ", ".join(_DEFAULT_PACKAGES)
    print(f"{len(texts)} documents, {size:.2f} MB: {names}; Python {platform.python_version()}, {os.cpu_count()} CPUs")
    for name in options.sections or _SECTIONS:
        print(f"{name}: {(_SECTIONS[name].__doc__ or '').splitlines()[0]}", flush=True)
        _SECTIONS[name](texts, options)
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024} MiB")


if __name__ == "__main__":
    main()
