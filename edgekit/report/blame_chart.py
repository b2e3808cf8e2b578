"""Where the marks of a chart of drift over depth stand. Numbers in, coordinates out; the template makes them SVG.

Drift spans many powers of ten, so its axis is logarithmic; what is exactly zero stands on a line of its own below.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["DepthChart", "DepthMark", "Tick", "depth_chart"]

_WIDTH, _HEIGHT = 760.0, 260.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 58.0, 14.0, 14.0, 40.0
_ZERO_GAP = 18.0
_SIDE_STEP = 0.22
_MOST_DEPTH_TICKS = 12
# Smaller than any drift that float32 arithmetic could show; an axis that followed noise below would flatten the rest.
_LEAST_EXPONENT, _MOST_DECADES = -9, 7


@dataclass(frozen=True)
class DepthMark:
    """One tensor.

    Attributes:
        index: Its place among the document's tensors.
        kind: "activation" or "weight".
        x: Centre, user units.
        y: Of its mean when only it is rounded.
        low: Of the lower end of the interval.
        high: Of the upper end.
        left_out: Of the mean when all but it is rounded.
    """

    index: int
    kind: str
    x: float
    y: float
    low: float
    high: float
    left_out: float


@dataclass(frozen=True)
class Tick:
    """A mark of an axis: what it says, and where it stands in user units."""

    text: str
    at: float


@dataclass(frozen=True)
class DepthChart:
    """Drift over depth, ready to be drawn.

    Attributes:
        width: Of the view box, user units; the page scales it.
        height: Of the view box.
        left: Left end of the plot.
        right: Right end.
        top: Upper end.
        bottom: Lower end of the logarithmic axis.
        zero: Where drift of zero stands.
        marks: One a tensor, in the document's order.
        drift_ticks: Powers of ten.
        depth_ticks: Places on the way to the logits.
        together: Of the mean with everything rounded.
    """

    width: float
    height: float
    left: float
    right: float
    top: float
    bottom: float
    zero: float
    marks: tuple[DepthMark, ...]
    drift_ticks: tuple[Tick, ...]
    depth_ticks: tuple[Tick, ...]
    together: float


def depth_chart(found: Mapping[str, Any], metric: str) -> DepthChart:
    """Lay out one measure of the document's "blame"."""
    tensors, together = found["tensors"], found["together"][metric]["mean"]
    values = [item["only"][metric][key] for item in tensors for key in ("mean", "high")]
    values += [item["all_but"][metric]["mean"] for item in tensors] + [together]
    first, last = _decades(values)
    left, right, top = _LEFT, _WIDTH - _RIGHT, _TOP
    zero = _HEIGHT - _BOTTOM
    bottom = zero - _ZERO_GAP
    depth = max(1, found["depth"])

    def upwards(value: float) -> float:
        if value <= 0:
            return zero
        place = (math.log10(value) - first) / (last - first)
        return round(bottom - min(max(place, 0.0), 1.0) * (bottom - top), 2)

    def across(place: float) -> float:
        return float(round(left + (place + 0.5) / (depth + 1) * (right - left), 2))

    return DepthChart(
        width=_WIDTH,
        height=_HEIGHT,
        left=left,
        right=right,
        top=top,
        bottom=bottom,
        zero=zero,
        marks=tuple(_mark(index, item, metric, across, upwards) for index, item in enumerate(tensors)),
        drift_ticks=tuple(
            Tick(f"1e{power}" if power else "1", upwards(10.0**power)) for power in range(first, last + 1)
        ),
        depth_ticks=tuple(Tick(str(place), across(place)) for place in _depth_places(depth)),
        together=upwards(together),
    )


def _mark(
    index: int,
    item: Mapping[str, Any],
    metric: str,
    across: Callable[[float], float],
    upwards: Callable[[float], float],
) -> DepthMark:
    only = item["only"][metric]
    # Weights stand beside the activation that their operation makes.
    aside = -_SIDE_STEP if item["kind"] == "weight" else _SIDE_STEP
    return DepthMark(
        index=index,
        kind=item["kind"],
        x=across(item["depth"] + aside),
        y=upwards(only["mean"]),
        low=upwards(only["low"]),
        high=upwards(only["high"]),
        left_out=upwards(item["all_but"][metric]["mean"]),
    )


def _decades(values: Sequence[float]) -> tuple[int, int]:
    """The powers of ten that the axis spans."""
    positive = [value for value in values if value > 0]
    if not positive:
        return -1, 0
    last = math.ceil(math.log10(max(positive)))
    least = max(math.floor(math.log10(min(positive))), _LEAST_EXPONENT, last - _MOST_DECADES)
    return min(least, last - 1), last


def _depth_places(depth: int) -> list[int]:
    step = max(1, math.ceil((depth + 1) / _MOST_DEPTH_TICKS))
    return list(range(0, depth + 1, step))
