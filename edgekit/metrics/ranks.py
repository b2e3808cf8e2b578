"""Ranks with ties."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["average_ranks"]


def average_ranks(rows: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
    """Rank the values of every row from 1 upwards; equal values share the average of their ranks.

    Args:
        rows: Floating [N, cells], without NaN.

    Returns:
        float64 [N, cells].
    """
    count, cells = rows.shape
    # Places in the flattened rows: one take and one put, where an index along an axis is built value by value.
    order = np.argsort(rows, axis=1) + np.arange(count)[:, None] * cells
    ordered = np.take(rows, order)
    place = np.arange(cells, dtype=np.int32)
    edge = np.ones((count, cells + 1), dtype=np.bool_)
    np.not_equal(ordered[:, 1:], ordered[:, :-1], out=edge[:, 1:-1])
    first = np.maximum.accumulate(np.where(edge[:, :-1], place, 0), axis=1)
    backwards = np.where(edge[:, 1:], place, cells)[:, ::-1]
    last = np.minimum.accumulate(backwards, axis=1)[:, ::-1]
    ranks = np.empty(rows.shape, dtype=np.float64)
    ranks.reshape(-1)[order.reshape(-1)] = ((first + last) / 2 + 1).reshape(-1)
    return ranks
