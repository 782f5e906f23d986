"""Pages to documents, one part at a time."""

import hashlib
from typing import Any

import pyarrow as pa

from qwenops.contracts.document import CODE_LANGUAGE, documents_from_rows, dropped_table
from qwenops.data.ingest.config import IngestConfig
from qwenops.data.ingest.language import identify_language
from qwenops.data.ingest.main_text import extract
from qwenops.data.ingest.markup import nesting_depth
from qwenops.data.ingest.text import damaged_share, decode, normalise, normalise_code

_COPIED = ("id", "source", "domain", "url", "license", "record_id", "fetched_at")


def ingest_pages(pages: pa.Table, config: IngestConfig) -> tuple[pa.Table, pa.Table, dict[str, list[int]]]:
    """Turn a table of pages into documents.

    Returns:
        Documents, dropped rows, and language hint to [pages identified as the hint says, pages identified].
    """
    kept: list[dict[str, Any]] = []
    dropped: list[tuple[str, str, str, str]] = []
    agreement: dict[str, list[int]] = {}
    for page in pages.to_pylist():
        text, reason = page_text(page["raw"], page["mime"], page["domain"], config)
        language, score = _language(page, text) if not reason else ("", 0.0)
        if not reason and page["lang_hint"] and language != CODE_LANGUAGE:
            counts = agreement.setdefault(page["lang_hint"], [0, 0])
            counts[0] += language == page["lang_hint"]
            counts[1] += 1
        reason = reason or _language_reason(language, score, config)
        if reason:
            dropped.append((page["id"], reason, page["url"], text))
        else:
            row = {name: page[name] for name in _COPIED}
            split = split_of(page["id"], config.heldout_share)
            kept.append(row | {"text": text, "lang": language, "lang_score": score, "split": split})
    return documents_from_rows(kept), dropped_table(dropped), agreement


def page_text(raw: bytes, mime: str, domain: str, config: IngestConfig) -> tuple[str, str]:
    """Text of a page and "", or what there is of it and the reason word for dropping it."""
    text = decode(raw, mime.partition("charset=")[2])
    if damaged_share(text) > config.max_undecodable_share:
        return normalise(text[:1000]), "undecodable"
    if "html" in mime:
        if nesting_depth(text, config.max_nesting) > config.max_nesting:
            return text[:1000], "deep_markup"
        text = extract(text, config.extractor)
    text = normalise_code(text) if domain == "code" else normalise(text)
    if not text:
        return "", "empty"
    return text, "too_large" if len(text) > config.max_characters else ""


def split_of(identifier: str, heldout_share: float) -> str:
    """Choose "train" or "heldout" by a hash of the id: stable under more data, other order and other workers."""
    place = int.from_bytes(hashlib.sha256(b"split" + identifier.encode()).digest()[:4], "big") / 2**32
    return "heldout" if place < heldout_share else "train"


def _language(page: dict[str, Any], text: str) -> tuple[str, float]:
    return (CODE_LANGUAGE, 1.0) if page["domain"] == "code" else identify_language(text)


def _language_reason(language: str, score: float, config: IngestConfig) -> str:
    if language == CODE_LANGUAGE:
        return ""
    if not language or score < config.min_language_score:
        return "lang_low_conf"
    return "lang_not_listed" if config.languages and language not in config.languages else ""
