"""Where the marks of a chart stand. Numbers in, coordinates out; the templates turn them into SVG."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["Bar", "HistogramChart", "Mark", "histogram_chart"]

_WIDTH, _HEIGHT = 320.0, 168.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 38.0, 14.0, 12.0, 30.0
# Maps that were lost have no place on the axis: their worst value would squeeze all others into one bar.
_LOST_SLOT, _LOST_BAR = 36.0, 16.0


@dataclass(frozen=True)
class Bar:
    """A bar: its place among the counts, and its rectangle in user units."""

    index: int
    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True)
class Mark:
    """A tick or bound: its place in its list, and its coordinate along the axis in user units."""

    index: int
    at: float


@dataclass(frozen=True)
class HistogramChart:
    """A histogram ready to be drawn.

    Attributes:
        width: Of the view box, user units; the page scales it.
        height: Of the view box.
        left: Left end of the plot.
        right: Right end.
        top: Upper end.
        bottom: Lower end, where the bars stand.
        bars: Bins that hold something.
        ticks: Along the values.
        count_ticks: Along the counts.
        demands: Bounds of the policy.
        lost: The bar of the lost maps beside the axis, on its bad side; None where none was lost.
        missed: Left end and width of the part of the axis where a sample misses the policy's share clause, or None.
    """

    width: float
    height: float
    left: float
    right: float
    top: float
    bottom: float
    bars: tuple[Bar, ...]
    ticks: tuple[Mark, ...]
    count_ticks: tuple[Mark, ...]
    demands: tuple[Mark, ...]
    missed: tuple[float, float] | None
    lost: Bar | None


def histogram_chart(described: Mapping[str, Any]) -> HistogramChart:
    """Lay out one entry of `describe_distributions` that has a histogram."""
    data, lost = described["histogram"], described["lost"]
    low, high, most = data["ticks"][0], data["ticks"][-1], max(data["count_ticks"][-1], lost)
    left, right, top, bottom = _LEFT, _WIDTH - _RIGHT, _TOP, _HEIGHT - _BOTTOM
    lost_at = left if described["better"] == "higher" else right - _LOST_BAR
    if lost:
        left, right = (left + _LOST_SLOT, right) if described["better"] == "higher" else (left, right - _LOST_SLOT)

    def across(value: float) -> float:
        return float(round(left + (value - low) / (high - low) * (right - left), 2))

    def upwards(count: float) -> float:
        return float(round(bottom - count / most * (bottom - top), 2))

    bars = []
    for index, count in enumerate(data["counts"]):
        if count:
            begin, end = across(data["edges"][index]), across(data["edges"][index + 1])
            bars.append(_bar(index, begin + 0.5, max(1.0, end - begin - 1.0), bottom - upwards(count), bottom))
    demands = tuple(Mark(index, across(demand["value"])) for index, demand in enumerate(described["demands"]))
    return HistogramChart(
        width=_WIDTH,
        height=_HEIGHT,
        left=left,
        right=right,
        top=top,
        bottom=bottom,
        bars=tuple(bars),
        ticks=tuple(Mark(index, across(value)) for index, value in enumerate(data["ticks"])),
        count_ticks=tuple(Mark(index, upwards(value)) for index, value in enumerate(data["count_ticks"])),
        demands=demands,
        missed=_missed(described, across, left, right),
        lost=_bar(0, lost_at, _LOST_BAR, bottom - upwards(lost), bottom) if lost else None,
    )


def _bar(index: int, x: float, width: float, height: float, bottom: float) -> Bar:
    # A single sample among thousands must still be seen.
    tall = max(1.5, height)
    return Bar(index, round(x, 2), round(bottom - tall, 2), round(width, 2), round(tall, 2))


def _missed(
    described: Mapping[str, Any], across: Callable[[float], float], left: float, right: float
) -> tuple[float, float] | None:
    bounds = [demand["value"] for demand in described["demands"] if demand["kind"] == "share"]
    if not bounds:
        return None
    # Of several share clauses the strictest: a sample that misses any of them counts as missing.
    if described["better"] == "higher":
        return left, round(across(max(bounds)) - left, 2)
    return across(min(bounds)), round(right - across(min(bounds)), 2)
