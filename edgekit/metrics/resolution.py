"""The least by which a metric moves when one cell of a map takes another's place: a finer tolerance is none.

Only metrics that count cells have such a step; the others follow the values, and move with the last bit of them.
"""

from __future__ import annotations

import math

from edgekit.metrics.comparisons import TOP_SHARE

__all__ = ["one_cell"]


def one_cell(metric: str, height: int, width: int) -> float:
    """How far from its best one cell takes a metric, on maps without ties.

    For "iou-top20" one of the strongest cells is another one; for "argmax-distance" the strongest cell is the one
    beside it. Noise of any size does that where two cells are about equal.

    Args:
        metric: Name of a metric.
        height: Cells of a map, at least 1.
        width: The same.

    Returns:
        The gap, 0 for metrics that count no cells and for maps of one cell.
    """
    cells = height * width
    if cells == 1:
        return 0.0
    if metric == "iou-top20":
        chosen = max(1, round(TOP_SHARE * cells))
        return 2 / (chosen + 1)
    if metric == "argmax-distance":
        return 1 / math.hypot(height - 1, width - 1)
    return 0.0
