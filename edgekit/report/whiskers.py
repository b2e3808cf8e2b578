"""Where dot, whiskers and bound of a value stand on its axis. Numbers in, coordinates out; templates make them SVG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edgekit.report.charts import Mark

__all__ = ["SLIM", "WIDE", "WhiskerChart", "WhiskerSize", "whisker_chart"]


@dataclass(frozen=True)
class WhiskerSize:
    """Of a drawing, in user units.

    Attributes:
        width: Of the view box.
        height: Of the view box.
        margin: Left and right of the axis.
        line: Where dot and whiskers lie.
        axis: Where the axis lies; equal to the height where none is drawn.
    """

    width: float
    height: float
    margin: float
    line: float
    axis: float


WIDE = WhiskerSize(width=360.0, height=58.0, margin=24.0, line=18.0, axis=36.0)
"""With an axis of its own."""

SLIM = WhiskerSize(width=132.0, height=18.0, margin=7.0, line=9.0, axis=18.0)
"""In a row of a table whose rows share one axis."""


@dataclass(frozen=True)
class WhiskerChart:
    """A value with its interval, ready to be drawn.

    Attributes:
        size: Of the drawing.
        left: Left end of the axis.
        right: Its right end.
        ticks: Along the axis.
        dot: Of the value, None where there is none.
        low: Left end of the whiskers, None where there is no interval.
        high: Right end.
        bound: Of the bound that is demanded, None where none is.
        good: Left end and width of the part of the axis that meets the bound; None where there is no bound.
    """

    size: WhiskerSize
    left: float
    right: float
    ticks: tuple[Mark, ...]
    dot: float | None
    low: float | None
    high: float | None
    bound: float | None
    good: tuple[float, float] | None


def whisker_chart(entry: Mapping[str, Any], ticks: Sequence[float], size: WhiskerSize = WIDE) -> WhiskerChart:
    """Lay out one value.

    Args:
        entry: Whatever it has of "observed", "lower", "upper", "bound" and "better" ("higher" or "lower").
        ticks: Of the axis, rising; the first and last are its ends. Values beyond are drawn at the end.
        size: How large.
    """
    left, right = size.margin, size.width - size.margin
    first, last = ticks[0], ticks[-1]

    def across(value: float | None) -> float | None:
        if value is None:
            return None
        place = (min(max(value, first), last) - first) / (last - first)
        return float(round(left + place * (right - left), 2))

    bound, better = across(entry.get("bound")), entry.get("better")
    good = None
    if bound is not None and better in ("higher", "lower"):
        good = (bound, round(right - bound, 2)) if better == "higher" else (left, round(bound - left, 2))
    return WhiskerChart(
        size=size,
        left=left,
        right=right,
        ticks=tuple(Mark(index, across(tick) or 0.0) for index, tick in enumerate(ticks)),
        dot=across(entry.get("observed")),
        low=across(entry.get("lower")),
        high=across(entry.get("upper")),
        bound=bound,
        good=good,
    )
