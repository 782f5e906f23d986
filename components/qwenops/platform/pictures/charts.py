"""Charts as inline SVG and tables as HTML, drawn by plain functions: the report carries no script and no library.

Colours are CSS variables of `page_style.py`, so a chart follows the reader's light or dark setting. Drawings are made
for a column of about 360 px, which a phone shows at nearly full size.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 360, 210
_LEFT, _RIGHT, _TOP, _BOTTOM = 42, 8, 10, 34
_TICKS = 5
_COLOURS = 8


@dataclass(frozen=True)
class Series:
    """One line of a chart.

    Attributes:
        name: Shown in the legend.
        points: (x, y) in rising x.
        dashed: Draw it as a control or a reference.
    """

    name: str
    points: Sequence[tuple[float, float]]
    dashed: bool = False


@dataclass(frozen=True)
class Cell:
    """A table cell: its text, and a share in 0..1 that tints it (None for none)."""

    text: str
    share: float | None = None


def line_chart(title: str, series: Sequence[Series], x_label: str, y_label: str) -> str:
    """A line chart with a legend; long series are thinned to what the width can show."""
    drawn = [Series(s.name, thin(finite(s.points)), s.dashed) for s in series]
    drawn = [s for s in drawn if s.points]
    if not drawn:
        return ""
    xs = [x for s in drawn for x, _ in s.points]
    ys = [y for s in drawn for _, y in s.points]
    x_axis, y_axis = Axis(min(xs), max(xs)), Axis(*_reach(ys))
    parts = [_grid(x_axis, y_axis, x_label)]
    for index, s in enumerate(drawn):
        places = " ".join(f"{_x(x, x_axis):.1f},{_y(y, y_axis):.1f}" for x, y in s.points)
        dash = ' stroke-dasharray="5 4"' if s.dashed else ""
        parts.append(f'<polyline class="line" style="stroke:var(--c{index % _COLOURS})"{dash} points="{places}"/>')
        if len(s.points) == 1:
            x, y = s.points[0]
            parts.append(
                f'<circle cx="{_x(x, x_axis):.1f}" cy="{_y(y, y_axis):.1f}" r="3" '
                f'style="fill:var(--c{index % _COLOURS})"/>'
            )
    svg = f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}">{"".join(parts)}</svg>'
    caption = f"{escape(title)} <small>{escape(y_label)}</small>"
    return f'<figure class="chart"><figcaption>{caption}</figcaption>{svg}{_legend(drawn)}</figure>'


def bars(title: str, rows: Sequence[tuple[str, float, str]], *, most: float | None = None) -> str:
    """Horizontal bars: (label, value, text behind the bar)."""
    if not rows:
        return ""
    full = most or max((abs(value) for _, value, _ in rows), default=0) or 1
    lines = "".join(
        f'<div class="bar"><span>{escape(label)}</span>'
        f'<i style="--w:{min(100, max(0.0, 100 * value / full)):.1f}%"></i><b>{escape(text)}</b></div>'
        for label, value, text in rows
    )
    return f"<figure><figcaption>{escape(title)}</figcaption>{lines}</figure>"


def heat_map(title: str, columns: Sequence[str], rows: Mapping[str, Sequence[float | None]], corner: str = "") -> str:
    """A grid of shares, red at 0 to green at 1, with the percentage in every cell."""
    body = [[Cell(name), *(_share_cell(value) for value in values)] for name, values in rows.items()]
    return f'<figure class="heat"><figcaption>{escape(title)}</figcaption>{table([corner, *columns], body)}</figure>'


def table(head: Sequence[str], rows: Sequence[Sequence[Cell]]) -> str:
    """A table that scrolls sideways on its own when the screen is narrow; the first column is the label."""
    top = "".join(f"<th>{escape(text)}</th>" for text in head)
    lines = "".join(f"<tr>{''.join(_cell(cell, first=i == 0) for i, cell in enumerate(row))}</tr>" for row in rows)
    return f'<div class="scroll"><table><thead><tr>{top}</tr></thead><tbody>{lines}</tbody></table></div>'


def number(value: float | None, digits: int = 3) -> str:
    """A figure for reading: thousands separated, small ones with `digits` significant digits, missing as a dash."""
    if value is None:
        return "-"
    if not math.isfinite(value):
        return str(value)
    if float(value).is_integer() and abs(value) < 1e15:
        return f"{int(value):,}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.{digits}g}"


def percent(value: float | None) -> str:
    """A share as a percentage, missing as a dash."""
    return "-" if value is None else f"{value:.1%}" if 0 < abs(value) < 0.1 else f"{value:.0%}"


def duration(seconds: float) -> str:
    """Seconds as a person says them."""
    if seconds < 60:
        return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"


def size(count: float) -> str:
    """A large count with its letter: 12.1M."""
    for bound, letter in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e4, "k")):
        if abs(count) >= bound:
            scale = 1e3 if letter == "k" else bound
            return f"{count / scale:.3g}{letter}"
    return number(count)


def thin(points: Sequence[tuple[float, float]], most: int = 160) -> list[tuple[float, float]]:
    """At most `most` points; each is the mean of its neighbours, the first and last are kept as they are."""
    if len(points) <= most:
        return list(points)
    step = len(points) / most
    groups = [points[int(i * step) : int((i + 1) * step)] for i in range(most)]
    means = [(sum(x for x, _ in g) / len(g), sum(y for _, y in g) / len(g)) for g in groups if g]
    return [points[0], *means[1:-1], points[-1]]


def finite(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """The points that can be drawn."""
    return [(x, y) for x, y in points if math.isfinite(x) and math.isfinite(y)]


@dataclass(frozen=True)
class Axis:
    """From where to where an axis reaches."""

    low: float
    high: float

    def share(self, value: float) -> float:
        """Where `value` lies, 0 to 1."""
        return (value - self.low) / (self.high - self.low) if self.high > self.low else 0.5

    def ticks(self) -> list[float]:
        """Round values inside the axis, about five."""
        span = self.high - self.low
        if span <= 0:
            return [self.low]
        rough = span / _TICKS
        power = 10 ** math.floor(math.log10(rough))
        step = next(k * power for k in (1, 2, 2.5, 5, 10) if k * power >= rough)
        first = math.ceil(self.low / step)
        return [k * step for k in range(first, math.floor(self.high / step) + 1)]


def _reach(ys: Sequence[float]) -> tuple[float, float]:
    """Low and high of the values, without the highest hundredth: a first loss of 7 would flatten the rest."""
    ordered = sorted(ys)
    high = ordered[min(len(ordered) - 1, int(0.99 * len(ordered)))]
    low = ordered[0]
    pad = 0.04 * (high - low) or abs(high) * 0.05 or 1.0
    return low - pad, high + pad


def _x(x: float, axis: Axis) -> float:
    return _LEFT + axis.share(x) * (WIDTH - _LEFT - _RIGHT)


def _y(y: float, axis: Axis) -> float:
    return _TOP + (1 - min(1.0, max(0.0, axis.share(y)))) * (HEIGHT - _TOP - _BOTTOM)


def _grid(x_axis: Axis, y_axis: Axis, x_label: str) -> str:
    parts: list[str] = []
    for tick in y_axis.ticks():
        y = _y(tick, y_axis)
        parts.append(f'<path class="rule" d="M{_LEFT} {y:.1f}H{WIDTH - _RIGHT}"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{_tick(tick)}</text>')
    for tick in x_axis.ticks():
        x = _x(tick, x_axis)
        parts.append(f'<text x="{x:.1f}" y="{HEIGHT - _BOTTOM + 16}" text-anchor="middle">{_tick(tick)}</text>')
    parts.append(f'<text x="{(WIDTH + _LEFT) / 2:.0f}" y="{HEIGHT - 3}" text-anchor="middle">{escape(x_label)}</text>')
    return "".join(parts)


def _tick(value: float) -> str:
    return size(value) if abs(value) >= 1e4 else f"{value:.4g}"


def _legend(series: Sequence[Series]) -> str:
    items = "".join(
        f'<li class="{"dashed" if s.dashed else ""}" style="--k:var(--c{i % _COLOURS})">{escape(s.name)} '
        f"<b>{number(s.points[-1][1])}</b></li>"
        for i, s in enumerate(series)
    )
    return f'<ul class="legend">{items}</ul>'


def _share_cell(value: float | None) -> Cell:
    return Cell(percent(value), value)


def _cell(cell: Cell, *, first: bool) -> str:
    tag = "th" if first else "td"
    if cell.share is None:
        return f"<{tag}>{escape(cell.text)}</{tag}>"
    # Hue 10 (red) to 145 (green); lightness comes from the style sheet, so both themes stay readable.
    hue = 10 + 135 * min(1.0, max(0.0, cell.share))
    return f'<{tag} class="heat" style="--h:{hue:.0f}">{escape(cell.text)}</{tag}>'
