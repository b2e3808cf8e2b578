"""The plot of a precision budget: what each candidate costs against how far its maps moved, as SVG and as PNG."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from html import escape

import numpy as np

from edgekit.report.colours import ENGINE_HUE, TEACHER_HUE
from edgekit.report.distributions import nice_ticks
from edgekit.report.images import png_bytes
from edgekit.report.optional import needs_package

__all__ = ["PARETO_PNG", "PARETO_SVG", "ParetoChart", "ParetoPoint", "draw_png", "draw_svg"]

PARETO_SVG = "pareto.svg"
PARETO_PNG = "pareto.png"

_WIDTH, _HEIGHT = 720.0, 440.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 84.0, 28.0, 60.0, 56.0
_LEAST_DRIFT = 1e-8
_INK, _QUIET, _RULE, _PAPER = (32, 32, 32), (96, 96, 96), (222, 222, 222), (255, 255, 255)
_HOLDS, _BREAKS = TEACHER_HUE, ENGINE_HUE
_LINE_HEIGHT, _LABEL_WIDTH = 15.0, 120.0


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


class _Layout:
    """Where everything stands, the same for both formats."""

    def __init__(self, chart: ParetoChart) -> None:
        self.chart = chart
        self.cost_ticks = nice_ticks(0.0, max(point.cost for point in chart.points) * 1.08 or 1.0)
        self._most = self.cost_ticks[-1]
        exponents = [math.log10(max(_LEAST_DRIFT, _shown(point))) for point in chart.points]
        self._low, self._high = math.floor(min(exponents)), math.floor(max(exponents)) + 1
        self.decades = tuple(range(self._low, self._high + 1))
        self.placed = self._place()

    def across(self, cost: float) -> float:
        return round(_LEFT + cost / self._most * (_WIDTH - _LEFT - _RIGHT), 2)

    def upwards(self, exponent: float) -> float:
        share = (exponent - self._low) / (self._high - self._low)
        return round(_HEIGHT - _BOTTOM - share * (_HEIGHT - _TOP - _BOTTOM), 2)

    def _place(self) -> tuple[_Placed, ...]:
        found: list[_Placed] = []
        for point in sorted(self.chart.points, key=lambda item: (-_shown(item), item.cost)):
            x, y = self.across(point.cost), self.upwards(math.log10(max(_LEAST_DRIFT, _shown(point))))
            leftwards = x > _WIDTH - _RIGHT - _LABEL_WIDTH
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
        f'<rect width="{_WIDTH:g}" height="{_HEIGHT:g}" fill="{_hex(_PAPER)}"/>',
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
        parts.append(f'<polyline points="{corners}" fill="none" stroke="{_hex(_QUIET)}" stroke-dasharray="5 4"/>')
    parts += [mark for item in layout.placed for mark in _svg_marks(item)]
    parts += _svg_legend(right)
    return "\n".join([*parts, "</svg>", ""])


def _svg_marks(item: _Placed) -> Iterable[str]:
    point = item.point
    colour = _hex(_HOLDS if point.holds else _BREAKS)
    if point.chosen:
        yield f'<circle cx="{item.x:g}" cy="{item.y:g}" r="9" fill="none" stroke="{colour}" stroke-width="1.5"/>'
    fill = colour if point.holds else _hex(_PAPER)
    drift = "not finite" if point.drift is None else repr(point.drift)
    yield (
        f'<circle cx="{item.x:g}" cy="{item.y:g}" r="5" fill="{fill}" stroke="{colour}" stroke-width="2" '
        f'data-cost="{point.cost!r}" data-drift="{drift}"><title>{escape(point.name)}</title></circle>'
    )
    side = -13 if item.leftwards else 13
    yield _text(item.x + side, item.label_y + 4, _label(point), anchor="end" if item.leftwards else "start")


def _svg_legend(right: float) -> Iterable[str]:
    for place, (colour, words, filled) in enumerate(_legend()):
        x = right - 250 + 130 * place
        fill = _hex(colour) if filled else _hex(_PAPER)
        yield f'<circle cx="{x:g}" cy="20" r="5" fill="{fill}" stroke="{_hex(colour)}" stroke-width="2"/>'
        yield _text(x + 10, 24, words)


def _legend() -> tuple[tuple[tuple[int, int, int], str, bool], ...]:
    return ((_HOLDS, "keeps the policy", True), (_BREAKS, "does not", False))


def _rule(x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<line x1="{x1:g}" y1="{y1:g}" x2="{x2:g}" y2="{y2:g}" stroke="{_hex(_RULE)}"/>'


def _text(x: float, y: float, words: str, *, anchor: str = "start", size: int = 12) -> str:
    return f'<text x="{x:g}" y="{y:g}" text-anchor="{anchor}" font-size="{size}">{escape(words)}</text>'


def _hex(colour: tuple[int, int, int]) -> str:
    return "#" + "".join(f"{channel:02x}" for channel in colour)


def draw_png(chart: ParetoChart) -> bytes:
    """The same plot as a PNG. Raises `UnavailableError` where Pillow is not installed."""
    with needs_package("Pillow", "images"):
        from PIL import Image, ImageDraw, ImageFont

    layout = _Layout(chart)
    right, bottom = _WIDTH - _RIGHT, _HEIGHT - _BOTTOM
    sheet = Image.new("RGB", (int(_WIDTH), int(_HEIGHT)), _PAPER)
    pen, font, large = ImageDraw.Draw(sheet), ImageFont.load_default(12), ImageFont.load_default(15)
    pen.text((_LEFT, 24), _one_line(chart.title), fill=_INK, font=large, anchor="ls")
    for place, (colour, words, filled) in enumerate(_legend()):
        x = right - 250 + 130 * place
        pen.ellipse((x - 5, 15, x + 5, 25), fill=colour if filled else _PAPER, outline=colour, width=2)
        pen.text((x + 10, 20), words, fill=_INK, font=font, anchor="lm")
    for decade in layout.decades:
        y = layout.upwards(decade)
        pen.line((_LEFT, y, right, y), fill=_RULE)
        pen.text((_LEFT - 8, y), layout.decade_in_words(decade), fill=_INK, font=font, anchor="rm")
    for tick in layout.cost_ticks:
        x = layout.across(tick)
        pen.line((x, _TOP, x, bottom), fill=_RULE)
        pen.text((x, bottom + 8), f"{tick:g}", fill=_INK, font=font, anchor="ma")
    pen.text(((_LEFT + right) / 2, _HEIGHT - 14), _one_line(chart.cost_label), fill=_INK, font=font, anchor="ms")
    # Pillow turns no text; the label of the upright axis lies above it.
    pen.text((8, _TOP - 10), _one_line(chart.drift_label), fill=_QUIET, font=font, anchor="lb")
    if len(layout.front) > 1:
        pen.line(list(layout.front), fill=_QUIET)
    for item in layout.placed:
        point = item.point
        colour = _HOLDS if point.holds else _BREAKS
        if point.chosen:
            pen.ellipse(_around(item, 9), outline=colour, width=2)
        pen.ellipse(_around(item, 5), fill=colour if point.holds else _PAPER, outline=colour, width=2)
        beside = (item.x + (-13 if item.leftwards else 13), item.label_y)
        pen.text(beside, _one_line(_label(point)), fill=_INK, font=font, anchor="rm" if item.leftwards else "lm")
    return png_bytes(np.asarray(sheet, dtype=np.uint8))


def _around(item: _Placed, radius: float) -> tuple[float, float, float, float]:
    return (item.x - radius, item.y - radius, item.x + radius, item.y + radius)


def _one_line(words: str) -> str:
    return " ".join(words.split())
