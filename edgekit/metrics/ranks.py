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
    order = np.argsort(rows, axis=1)
    ordered = np.take_along_axis(rows, order, axis=1)
    place = np.broadcast_to(np.arange(rows.shape[1]), rows.shape)
    edge = ordered[:, 1:] != ordered[:, :-1]
    ends = np.ones((len(rows), 1), dtype=np.bool_)
    first = np.maximum.accumulate(np.where(np.hstack([ends, edge]), place, 0), axis=1)
    backwards = np.where(np.hstack([edge, ends]), place, rows.shape[1])[:, ::-1]
    last = np.minimum.accumulate(backwards, axis=1)[:, ::-1]
    ranks = np.empty(rows.shape, dtype=np.float64)
    np.put_along_axis(ranks, order, (first + last) / 2 + 1, axis=1)
    return ranks
