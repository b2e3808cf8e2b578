"""The plot of a precision budget: what each candidate costs against how far its maps moved, as SVG and as PNG."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from edgekit.report.colours import ENGINE_HUE, TEACHER_HUE
from edgekit.report.distributions import nice_ticks
from edgekit.report.images import png_bytes
from edgekit.report.optional import needs_package

if TYPE_CHECKING:
    from PIL.ImageDraw import ImageDraw

__all__ = ["PARETO_PNG", "PARETO_SVG", "ParetoChart", "ParetoPoint", "draw_png", "draw_svg"]

PARETO_SVG = "pareto.svg"
PARETO_PNG = "pareto.png"

_WIDTH, _HEIGHT = 720.0, 440.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 84.0, 28.0, 60.0, 56.0
_LEAST_DRIFT = 1e-8
_Colour: TypeAlias = tuple[int, int, int]
_INK, _QUIET, _RULE, _PAPER = (32, 32, 32), (96, 96, 96), (222, 222, 222), (255, 255, 255)
_HOLDS, _BREAKS = TEACHER_HUE, ENGINE_HUE
_LINE_HEIGHT, _LABEL_WIDTH = 15.0, 120.0
# Of the picture to the drawing: half of all screens show two pixels where there was one.
_DENSITY = 2
_CROWDED = 26.0
# A label further than this from its point is tied to it by a line.
_BESIDE = 4.0
# The hues that stand out from a dark page; by the same source as the others.
_DARK_STYLE = """<style>
.words { paint-order: stroke; stroke: #ffffff; stroke-width: 3px; stroke-linejoin: round; }
@media (prefers-color-scheme: dark) {
  .paper { fill: #15171a; }
  .open { fill: #15171a; }
  text { fill: #e7e9ec; }
  .words { stroke: #15171a; }
  .rule { stroke: #363b42; }
  .front, .tie { stroke: #a3aab4; }
  .holds { stroke: #56b4e9; }
  .holds.full { fill: #56b4e9; }
  .breaks { stroke: #f0924a; }
}
</style>"""


@dataclass(frozen=True)
class ParetoPoint:
    """A candidate.

    Attributes:
        name: For the label.
        cost: Position along the first axis, at least 0.
        drift: Position along the second, at least 0; None where maps are not finite: drawn at the upper end.
        holds: It keeps the policy.
        chosen: It is the chosen one.
    """

    name: str
    cost: float
    drift: float | None
    holds: bool
    chosen: bool


@dataclass(frozen=True)
class ParetoChart:
    """What is drawn.

    Attributes:
        points: At least one.
        cost_label: Of the first axis.
        drift_label: Of the second, which is logarithmic.
        title: Above the plot.
    """

    points: tuple[ParetoPoint, ...]
    cost_label: str
    drift_label: str
    title: str


@dataclass(frozen=True)
class _Placed:
    """A point and its label on the canvas."""

    point: ParetoPoint
    x: float
    y: float
    label_y: float
    leftwards: bool

    @property
    def label_x(self) -> float:
        return self.x + (-13 if self.leftwards else 13)

    @property
    def tied(self) -> bool:
        """The label had to move away from its point."""
        return abs(self.label_y - self.y) > _BESIDE


class _Layout:
    """Where everything stands, the same for both formats."""

    def __init__(self, chart: ParetoChart) -> None:
        self.chart = chart
        self.cost_ticks = nice_ticks(0.0, max(point.cost for point in chart.points) * 1.08 or 1.0)
        self._most = self.cost_ticks[-1]
        exponents = [math.log10(max(_LEAST_DRIFT, _shown(point))) for point in chart.points]
        # A point may lie on the frame: a decade above it would be empty.
        self._low = math.floor(min(exponents))
        self._high = max(math.ceil(max(exponents)), self._low + 1)
        self.decades = tuple(range(self._low, self._high + 1))
        self.placed = self._place()

    def across(self, cost: float) -> float:
        return round(_LEFT + cost / self._most * (_WIDTH - _LEFT - _RIGHT), 2)

    def upwards(self, exponent: float) -> float:
        share = (exponent - self._low) / (self._high - self._low)
        return round(_HEIGHT - _BOTTOM - share * (_HEIGHT - _TOP - _BOTTOM), 2)

    def _place(self) -> tuple[_Placed, ...]:
        found: list[_Placed] = []
        places = {
            (self.across(point.cost), self.upwards(math.log10(max(_LEAST_DRIFT, _shown(point)))))
            for point in self.chart.points
        }
        for point in sorted(self.chart.points, key=lambda item: (-_shown(item), item.cost)):
            x, y = self.across(point.cost), self.upwards(math.log10(max(_LEAST_DRIFT, _shown(point))))
            # Not over the frame, and not over a neighbour.
            crowded = any(0 < other_x - x < _CROWDED and abs(other_y - y) < _LINE_HEIGHT for other_x, other_y in places)
            leftwards = x > _WIDTH - _RIGHT - _LABEL_WIDTH or (crowded and x > _LEFT + _LABEL_WIDTH)
            # From top to bottom, each label below those that would cover it.
            taken = [other.label_y for other in found if abs(other.x - x) < _LABEL_WIDTH]
            label_y = max([y, *(other + _LINE_HEIGHT for other in taken)])
            found.append(_Placed(point, x, y, round(label_y, 2), leftwards))
        return tuple(found)

    def decade_in_words(self, exponent: int) -> str:
        """A tick of the second axis; what lies below the least drift that is told apart is drawn on it."""
        return ("<= " if 10.0**exponent <= _LEAST_DRIFT else "") + f"1e{exponent}"

    @property
    def front(self) -> tuple[tuple[float, float], ...]:
        """Points that no other beats in both of the plot's axes, from left to right."""
        corners = sorted({(item.x, item.y) for item in self.placed})
        lowest = [max(y for _, y in corners[: place + 1]) for place in range(len(corners))]
        # Downwards on the canvas is less drift.
        return tuple(corner for place, corner in enumerate(corners) if place == 0 or corner[1] > lowest[place - 1])


def _shown(point: ParetoPoint) -> float:
    return 1.0 if point.drift is None else point.drift


def _label(point: ParetoPoint) -> str:
    return point.name + (" (chosen)" if point.chosen else "")


def draw_svg(chart: ParetoChart) -> str:
    """The plot as an SVG file that needs nothing else. All text is escaped."""
    layout = _Layout(chart)
    right, bottom = _WIDTH - _RIGHT, _HEIGHT - _BOTTOM
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH:g} {_HEIGHT:g}" role="img" '
        f'font-family="sans-serif" font-size="12" fill="{_hex(_INK)}">',
        f"<title>{escape(chart.title)}</title>",
        _DARK_STYLE,
        f'<rect class="paper" width="{_WIDTH:g}" height="{_HEIGHT:g}" fill="{_hex(_PAPER)}"/>',
        _text(_LEFT, 24, chart.title, size=15),
    ]
    for decade in layout.decades:
        y = layout.upwards(decade)
        parts.append(_rule(_LEFT, y, right, y))
        parts.append(_text(_LEFT - 8, y + 4, layout.decade_in_words(decade), anchor="end"))
    for tick in layout.cost_ticks:
        x = layout.across(tick)
        parts.append(_rule(x, _TOP, x, bottom))
        parts.append(_text(x, bottom + 18, f"{tick:g}", anchor="middle"))
    parts.append(_text((_LEFT + right) / 2, _HEIGHT - 14, chart.cost_label, anchor="middle"))
    middle = (_TOP + bottom) / 2
    parts.append(
        f'<text x="20" y="{middle:g}" text-anchor="middle" transform="rotate(-90 20 {middle:g})">'
        f"{escape(chart.drift_label)}</text>"
    )
    if len(layout.front) > 1:
        corners = " ".join(f"{x:g},{y:g}" for x, y in layout.front)
        parts.append(
            f'<polyline class="front" points="{corners}" fill="none" stroke="{_hex(_QUIET)}" stroke-dasharray="5 4"/>'
        )
    parts += [mark for item in layout.placed for mark in _svg_marks(item)]
    parts += _svg_legend(right)
    return "\n".join([*parts, "</svg>", ""])


def _svg_marks(item: _Placed) -> Iterable[str]:
    point = item.point
    if item.tied:
        yield (
            f'<line class="tie" x1="{item.x:g}" y1="{item.y:g}" x2="{item.label_x:g}" y2="{item.label_y:g}" '
            f'stroke="{_hex(_QUIET)}" stroke-width="0.75"/>'
        )
    if point.chosen:
        yield _circle(item.x, item.y, 9, 'fill="none"', holds=point.holds, full=False)
    drift = "not finite" if point.drift is None else repr(point.drift)
    told = f'data-cost="{point.cost!r}" data-drift="{drift}"'
    mark = _circle(item.x, item.y, 5, told, holds=point.holds, full=point.holds)
    yield mark.removesuffix("/>") + f"><title>{escape(point.name)}</title></circle>"
    anchor = "end" if item.leftwards else "start"
    yield _text(item.label_x, item.label_y + 4, _label(point), anchor=anchor, kind="words")


def _circle(x: float, y: float, radius: float, attributes: str, *, holds: bool, full: bool) -> str:
    colour = _hex(_HOLDS if holds else _BREAKS)
    kind = ("holds" if holds else "breaks") + (" full" if full else "" if "fill=" in attributes else " open")
    fill = "" if "fill=" in attributes else f' fill="{colour if full else _hex(_PAPER)}"'
    return (
        f'<circle class="{kind}" cx="{x:g}" cy="{y:g}" r="{radius:g}"{fill} stroke="{colour}" stroke-width="2" '
        f"{attributes}/>"
    )


def _svg_legend(right: float) -> Iterable[str]:
    for place, (holds, words) in enumerate(_legend()):
        x = right - 250 + 130 * place
        yield _circle(x, 20, 5, "", holds=holds, full=holds)
        yield _text(x + 10, 24, words)


def _legend() -> tuple[tuple[bool, str], ...]:
    return ((True, "keeps the policy"), (False, "does not"))


def _rule(x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<line class="rule" x1="{x1:g}" y1="{y1:g}" x2="{x2:g}" y2="{y2:g}" stroke="{_hex(_RULE)}"/>'


def _text(x: float, y: float, words: str, *, anchor: str = "start", size: int = 12, kind: str = "") -> str:
    named = f' class="{kind}"' if kind else ""
    return f'<text{named} x="{x:g}" y="{y:g}" text-anchor="{anchor}" font-size="{size}">{escape(words)}</text>'


def _hex(colour: tuple[int, int, int]) -> str:
    return "#" + "".join(f"{channel:02x}" for channel in colour)


def draw_png(chart: ParetoChart) -> bytes:
    """The same plot as a PNG of 1440 x 880 pixels. Raises `UnavailableError` where Pillow is not installed."""
    with needs_package("Pillow", "images"):
        from PIL import Image, ImageDraw

    layout = _Layout(chart)
    sheet = Image.new("RGB", (int(_WIDTH) * _DENSITY, int(_HEIGHT) * _DENSITY), _PAPER)
    pen = _Pen(ImageDraw.Draw(sheet))
    right, bottom = _WIDTH - _RIGHT, _HEIGHT - _BOTTOM
    pen.words(_LEFT, 24, chart.title, "ls", size=15)
    for place, (holds, words) in enumerate(_legend()):
        x = right - 250 + 130 * place
        pen.circle(x, 20, 5, holds=holds, full=holds)
        pen.words(x + 10, 20, words, "lm")
    for decade in layout.decades:
        y = layout.upwards(decade)
        pen.line([(_LEFT, y), (right, y)], _RULE)
        pen.words(_LEFT - 8, y, layout.decade_in_words(decade), "rm")
    for tick in layout.cost_ticks:
        x = layout.across(tick)
        pen.line([(x, _TOP), (x, bottom)], _RULE)
        pen.words(x, bottom + 8, f"{tick:g}", "ma")
    pen.words((_LEFT + right) / 2, _HEIGHT - 14, chart.cost_label, "ms")
    # Pillow turns no text; the label of the upright axis lies above it.
    pen.words(8, _TOP - 10, chart.drift_label, "lb", colour=_QUIET)
    if len(layout.front) > 1:
        pen.line(list(layout.front), _QUIET)
    for item in layout.placed:
        if item.tied:
            pen.line([(item.x, item.y), (item.label_x, item.label_y)], _QUIET)
        if item.point.chosen:
            pen.circle(item.x, item.y, 9, holds=item.point.holds, full=False, fill=False)
        pen.circle(item.x, item.y, 5, holds=item.point.holds, full=item.point.holds)
        pen.words(item.label_x, item.label_y, _label(item.point), "rm" if item.leftwards else "lm")
    return png_bytes(np.asarray(sheet, dtype=np.uint8))


class _Pen:
    """Draws in the units of the layout on a picture of more pixels."""

    def __init__(self, draw: ImageDraw) -> None:
        self._draw = draw

    def words(self, x: float, y: float, words: str, anchor: str, *, size: int = 12, colour: _Colour = _INK) -> None:
        from PIL import ImageFont

        font = ImageFont.load_default(size * _DENSITY)
        where = (x * _DENSITY, y * _DENSITY)
        line = " ".join(words.split())
        # Paper around the letters: labels lie over lines.
        self._draw.text(where, line, fill=colour, font=font, anchor=anchor, stroke_width=3, stroke_fill=_PAPER)

    def line(self, corners: Sequence[tuple[float, float]], colour: _Colour) -> None:
        self._draw.line([(x * _DENSITY, y * _DENSITY) for x, y in corners], fill=colour, width=_DENSITY)

    def circle(self, x: float, y: float, radius: float, *, holds: bool, full: bool, fill: bool = True) -> None:
        colour = _HOLDS if holds else _BREAKS
        box = tuple(_DENSITY * value for value in (x - radius, y - radius, x + radius, y + radius))
        inside = None if not fill else colour if full else _PAPER
        self._draw.ellipse(box, fill=inside, outline=colour, width=2 * _DENSITY)
