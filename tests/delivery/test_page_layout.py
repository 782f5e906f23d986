"""Nothing of the report is cut off: on a desk (1280 px), on a phone (390 px) and on paper."""

import json
import re
from html.parser import HTMLParser

import pytest
from tests.browser import laid_out
from tests.delivery.fabricated import fabricate, record_of

from qwenops.delivery.report.page import render
from qwenops.platform.pictures.style import STYLE

DESK, PHONE, PAPER = 1280, 390, 718
"""Widths in CSS pixels; paper is A4 less a centimetre on each side."""


@pytest.fixture
def page(tmp_path):
    artifacts = fabricate(tmp_path / "stages")
    # Lengths of the published sizes: twice as many digits as those of a tiny model.
    grid = artifacts["long_context"] / "grid.json"
    grid.write_text(json.dumps(json.loads(grid.read_text()) | {"context_length_tokens": 32_768}))
    return render(record_of(artifacts), artifacts)


class _Tables(HTMLParser):
    """Rows of cell texts per table, with the elements around each table and the classes they have."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[tuple[str, str]] = []
        self.tables: list[list[list[str]]] = []
        self.around: list[list[str]] = []

    def handle_starttag(self, tag, attrs):
        if tag == "table":
            self.tables.append([])
            self.around.append([classes for _, classes in self.open])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("th", "td"):
            self.tables[-1][-1].append("")
        if tag not in ("meta", "br", "rect", "path", "polyline", "circle"):
            self.open.append((tag, dict(attrs).get("class", "")))

    def handle_endtag(self, tag):
        if self.open and self.open[-1][0] == tag:
            self.open.pop()

    def handle_data(self, data):
        if self.open and self.open[-1][0] in ("th", "td"):
            self.tables[-1][-1][-1] += data


def rule(selector: str) -> dict[str, str]:
    """Declarations of the style sheet's rule for exactly this selector."""
    found = re.search(rf"(?:^|[}}\n]){re.escape(selector)}\{{([^}}]*)\}}", STYLE)
    assert found, selector
    return dict(part.split(":", 1) for part in found.group(1).replace("\n", "").split(";") if part)


def narrowest(table: list[list[str]]) -> float:
    """Least width of a table in px: words of the head and the labels may stand below each other, figures may not.

    A digit of the usual system fonts is at most 0.64 of the font's size wide, a bold letter 0.7.
    """
    size, sides = 13.5, 18.0
    widths = []
    for column in range(max(map(len, table))):
        cells = [row[column] for row in table if column < len(row)]
        head = max(map(len, cells[0].split() or [""])) * 0.7 * 13
        body = [max(map(len, text.split() or [""])) if column == 0 else len(text) for text in cells[1:]]
        widths.append(sides + max([head, *(count * 0.64 * size for count in body)], default=0))
    return sum(widths)


def test_each_table_has_room_on_a_desk_and_may_take_it(page):
    tables = _Tables()
    tables.feed(page)
    assert len(tables.tables) > 15
    room = int(rule("main")["max-width"].removesuffix("px")) - 2 * 14 - 2 * (14 + 1)
    widths = [narrowest(table) for table in tables.tables]
    assert [width for width in widths if width > room] == []
    # A column of a third of the page is too narrow for some, so a card must be as wide as the table that it holds.
    assert max(widths) > room / 3
    assert rule(".grid")["flex-wrap"] == "wrap"
    assert rule(".grid>*")["min-width"] == "auto"
    assert rule(".grid>*")["max-width"] == "100%"


def test_each_table_scrolls_within_itself_where_the_screen_is_narrow(page):
    tables = _Tables()
    tables.feed(page)
    assert all("scroll" in around for around in tables.around)
    assert rule(".scroll")["overflow-x"] == "auto"


@pytest.mark.integration
def test_nothing_is_cut_off_in_a_browser(page, tmp_path):
    paper = page.replace("@media print", "@media all")
    desk, phone, print_out = laid_out([(DESK, page), (PHONE, page), (PAPER, paper)], tmp_path)
    assert desk["cells"] > 300
    for found in (desk, phone, print_out):
        assert found["page"] <= found["screen"], found["beyond"]
        assert found["beyond"] == []
        assert found["spilt"] == []
    assert desk["cut"] == []
    assert print_out["cut"] == []
