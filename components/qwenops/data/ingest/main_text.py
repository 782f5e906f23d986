"""The main text of a page: a fast reader, its head and its labels cut off, a thorough reader where that looks bad.

resiliparse reads a page in 2 ms and keeps nearly all of an article, with the title, the byline and a few labels
around it; trafilatura takes five to fifteen times as long and cuts better. So the fast one reads every page, lines that
are no prose are cut, and the thorough one reads again the few pages on which much of the text is such lines.
"""

import re
from collections import Counter
from typing import Literal

import trafilatura
from resiliparse.extract.html2text import extract_plain_text

Extractor = Literal["combined", "trafilatura", "resiliparse"]

# A line of prose: long enough (in bytes, since a Chinese character says as much as three Latin letters), and a mark
# ends it.
_PROSE_BYTES = 40
_MARKS = tuple(".?!\"'\u201d\u2019\u00bb\u3002\uff01\uff1f\u2026")
_UNREPEATED_CHARACTERS = 200
_MAX_LOOSE_SHARE = 0.5
_FOOTER_CHARACTERS = 250
_LABEL = re.compile(
    r"(?i)\W*(advertisement|adverti[sz]ing|share( this)?|tweet|read more|see also|related( articles| stories)?"
    r"|more from\b.*|most popular|tag(s|ged)?\b.{0,80}|copyright\b.*|\u00a9.*|published|updated|source:.{0,60}"
    r"|(photo|image):.{0,80}|by|newsletter|(subscribe|sign up|click here)\b.{0,80}|follow us\b.{0,60}"
    r"|(\d+ )?comments?|loading|print|email)\W*"
)
_FOOTER = re.compile(
    r"(?i)all rights reserved|copyright \u00a9|\u00a9\s?\d{4}|terms of (use|service)|privacy policy|sign up for"
    r"|subscribe to|newsletter|follow (us|him|her) on|click here to|cookies"
)


def extract(html: str, extractor: Extractor) -> str:
    """The main content of a page as plain text, '' when there is none; navigation, scripts and comments go."""
    if extractor == "trafilatura":
        return trafilatura.extract(html, favor_precision=True, include_comments=False) or ""
    text = extract_plain_text(html, main_content=True, alt_texts=False, links=False, form_fields=False, comments=False)
    if extractor == "resiliparse":
        return text
    if loose_share(text) > _MAX_LOOSE_SHARE and (better := _read_again(html)):
        return better
    return trimmed(text)


def trimmed(text: str) -> str:
    """Without labels, footers, repeated captions, and what stands before the first line of prose.

    A text without a line of prose (a list, a poem) is given back as it is.
    """
    counts = Counter(line.strip() for line in text.split("\n"))
    lines = [line for line in text.split("\n") if not line.strip() or not _is_boilerplate(line.strip(), counts)]
    first = next((number for number, line in enumerate(lines) if _is_prose(line)), None)
    return text if first is None else "\n".join(lines[first:])


def loose_share(text: str) -> float:
    """Share of characters in lines that are no prose: menus, captions, tables."""
    lines = [line for line in text.split("\n") if line.strip()]
    return sum(len(line) for line in lines if not _is_prose(line)) / max(sum(map(len, lines)), 1)


def _read_again(html: str) -> str:
    # Without trafilatura's own second opinions, which cost four times as much and choose worse on such pages.
    return trafilatura.extract(html, favor_precision=True, include_comments=False, fast=True) or ""


def _is_prose(line: str) -> bool:
    line = line.strip()
    return len(line.encode()) >= _PROSE_BYTES and line.endswith(_MARKS)


def _is_boilerplate(line: str, counts: Counter[str]) -> bool:
    if _LABEL.fullmatch(line):
        return True
    if len(line) < _FOOTER_CHARACTERS and _FOOTER.search(line):
        return True
    return counts[line] > 1 and not (len(line) >= _UNREPEATED_CHARACTERS and line.endswith(_MARKS))
