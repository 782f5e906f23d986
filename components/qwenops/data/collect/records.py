"""`Record`: what a reader of files gives, page or loss, and what a row of JSON or Parquet says about its text."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

TEXT, HTML = "text/plain", "text/html"
_TEXT_FIELDS = ("text", "content", "html")
# What data sets call these, most common first; looked for in the row, then in its "metadata" or "meta".
_FIELDS = {
    "url": ("url", "uri", "source_url"),
    "record_id": ("id", "doc_id", "uid"),
    "lang": ("language", "lang"),
    "date": ("date", "timestamp", "created", "added"),
    "license": ("license", "licence"),
}
_CHATS = ("messages", "conversations", "conversation", "dialogue")
_ANSWERED = (("prompt", ("completion", "response", "chosen")), ("instruction", ("output", "response")))
_SPEAKER = (("role", "content"), ("from", "value"))
_LANGUAGE = re.compile(r"[a-z]{2,3}(?![a-z])")
_DAY = re.compile(r"\d{4}-\d\d-\d\d")
UNSUPPORTED = "unsupported_"


@dataclass(frozen=True)
class Record:
    """One record of a file: its address below the file's, media type and bytes, or the reason it was dropped.

    Attributes:
        anchor: "#" and a number, or the address of a page that a WARC file holds; "" for a whole file.
        mime: Media type.
        raw: The bytes.
        reason: Why it is dropped; "" for a page.
        date: The day that the file states for it, ISO 8601; like all that follow "" where it states none.
        url: Where a row says its text is from.
        record_id: The row's own id.
        lang: The row's language, ISO 639.
        license: The row's licence.
    """

    anchor: str
    mime: str
    raw: bytes
    reason: str = ""
    date: str = ""
    url: str = ""
    record_id: str = ""
    lang: str = ""
    license: str = ""


def record_of(anchor: str, value: Any) -> Record:
    """A record from JSON: a string, or an object whose text lies under "text", "content" or "html".

    Conversations are refused by name: they are no documents, and their texts are not to be learnt without their turns.
    """
    if isinstance(value, str):
        return Record(anchor, TEXT, value.encode("utf-8", "replace"))
    if is_chat(value):
        return Record(anchor, TEXT, b"", UNSUPPORTED + "chat")
    if not isinstance(value, dict):
        return Record(anchor, TEXT, b"", "no_text")
    field = next((name for name in _TEXT_FIELDS if isinstance(value.get(name), str | bytes)), None)
    if field is None:
        return Record(anchor, TEXT, b"", "no_text")
    text = value[field]
    raw = text if isinstance(text, bytes) else text.encode("utf-8", "replace")
    return Record(anchor, HTML if field == "html" else TEXT, raw, **_facts(value))


def is_chat(value: Any) -> bool:
    """Whether a value of JSON is a conversation, or a question with its answer, and no document."""
    if isinstance(value, list):
        return bool(value) and all(_is_turn(item) for item in value)
    if not isinstance(value, dict) or isinstance(value.get("text"), str | bytes):
        return False
    return (
        any(isinstance(value.get(name), list) for name in _CHATS)
        or _is_turn(value)
        or any(asked in value and any(name in value for name in answers) for asked, answers in _ANSWERED)
    )


def _is_turn(value: Any) -> bool:
    return isinstance(value, dict) and any(speaker in value and said in value for speaker, said in _SPEAKER)


def _facts(row: Mapping[str, Any]) -> dict[str, str]:
    places = [row, *(row[name] for name in ("metadata", "meta") if isinstance(row.get(name), dict))]
    facts = {
        field: next((str(place[name]) for place in places for name in names if _is_plain(place.get(name))), "")
        for field, names in _FIELDS.items()
    }
    language, day = _LANGUAGE.match(facts["lang"].lower()), _DAY.match(facts["date"])
    return facts | {"lang": language.group() if language else "", "date": day.group() if day else ""}


def _is_plain(value: Any) -> bool:
    return isinstance(value, str | int) and not isinstance(value, bool) and value != ""
