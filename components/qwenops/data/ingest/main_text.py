"""The main text of a page: a fast reader, its head and its labels cut off, a thorough reader where that looks bad.

resiliparse reads a page in 2 ms and keeps nearly all of an article, with the title, the byline and a few labels
around it; trafilatura takes five to fifteen times as long and cuts better. So the fast one reads every page, lines that
are no prose are cut, and the thorough one reads again the few pages on which much of the text is such lines.
"""

import re
from collections import Counter
from collections.abc import Collection
from typing import Literal

import trafilatura
from resiliparse.extract.html2text import extract_plain_text
from resiliparse.parse.html import ElementNode, HTMLTree

Extractor = Literal["combined", "trafilatura", "resiliparse"]

# A line of prose: long enough (in bytes, since a Chinese character says as much as three Latin letters), and a mark
# ends it.
_PROSE_BYTES = 40
_MARKS = tuple(".?!\"'\u201d\u2019\u00bb\u3002\uff01\uff1f\u2026")
_MAX_LOOSE_SHARE = 0.5
_FOOTER_CHARACTERS = 250
_LIST_DEPTH = 4
_NO_MENU = "*:not(nav):not(header):not(footer):not(aside)"
_SHALLOW_LISTS = f"body > ul, body > {_NO_MENU} > ul, body > {_NO_MENU} > {_NO_MENU} > ul"
_HEADING_CHARACTERS = 300
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
    """The main content of a page as plain text, '' when there is none; navigation, scripts and comments go.

    The page's heading stands first where the reader left it out, and programs (`pre`) stay as they are.
    """
    tree = HTMLTree.parse(html)
    body = tree.body
    if body is None:
        return ""
    if extractor == "trafilatura":
        text = trafilatura.extract(html, favor_precision=True, include_comments=False) or ""
    else:
        blocks = body.get_elements_by_tag_name("pre")
        programs = {line.strip() for block in blocks for line in (block.text or "").split("\n")}
        _deepen_lists(tree, body)
        text = extract_plain_text(
            tree, main_content=True, alt_texts=False, links=False, form_fields=False, comments=False
        )
        if extractor == "combined":
            text = (boilerplate_share(text, programs) > _MAX_LOOSE_SHARE and _read_again(html)) or trim_boilerplate(
                text, programs
            )
    heading = _heading(tree, body)
    return text if not text.strip() or heading in text else f"{heading}\n\n{text}"


def trim_boilerplate(text: str, programs: Collection[str] = ()) -> str:
    """Without labels, footers, repeated captions, and what stands before the first line of prose or program.

    A text without a line of prose (a list, a poem) is given back as it is.

    Args:
        text: What a reader found.
        programs: Lines that stand in programs, without the blanks around them; they are never cut.
    """
    counts = Counter(line.strip() for line in text.split("\n"))
    lines = [
        line
        for line in text.split("\n")
        if line.strip() in programs or not line.strip() or not _is_boilerplate(line.strip(), counts)
    ]
    if not any(_is_prose(line) for line in lines):
        return text
    first = next(n for n, line in enumerate(lines) if _is_prose(line) or (line.strip() and line.strip() in programs))
    return "\n".join(lines[first:])


def _deepen_lists(tree: HTMLTree, body: ElementNode) -> None:
    """Put lists deeper: resiliparse takes a list near the root of a page for its menu, whatever it holds.

    Lists that are mostly links, and lists in navigation, are left where they are.
    """
    for listing in body.query_selector_all(_SHALLOW_LISTS):
        linked = sum(len(link.text or "") for link in listing.get_elements_by_tag_name("a"))
        if 2 * linked >= len((listing.text or "").strip()):
            continue
        parent = listing.parent
        outer = inner = tree.create_element("div")
        for _ in range(_LIST_DEPTH - 1):
            deeper = tree.create_element("div")
            assert inner is not None and deeper is not None, "a tree makes elements"
            inner = inner.append_child(deeper)
        assert parent is not None and outer is not None and inner is not None, "a list stands below the body"
        parent.replace_child(outer, listing)
        inner.append_child(listing)


def _heading(tree: HTMLTree, body: ElementNode) -> str:
    """The first heading of a page, or its title where it has none; "" where that is no heading's length."""
    found = body.query_selector("h1")
    heading = " ".join(((found.text if found is not None else tree.title) or "").split())
    return heading if len(heading) <= _HEADING_CHARACTERS else ""


def boilerplate_share(text: str, programs: Collection[str] = ()) -> float:
    """Share of characters in lines that are neither prose nor program: menus, captions, tables."""
    lines = [line for line in text.split("\n") if line.strip() and line.strip() not in programs]
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
    return counts[line] > 1 and not _is_prose(line)
