"""The cheapest one-to-one assignment, in numpy alone: a device has no scipy."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["assign"]


def assign(cost: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """Give every row a column of its own so that the costs add up to the least.

    Shortest augmenting paths (Jonker and Volgenant 1987, doi:10.1007/BF02278710), one row at a time: at most N^2 steps
    of vectors of length N.

    Args:
        cost: float64 [N, N], finite.

    Returns:
        int64 [N], the column of each row.
    """
    count = len(cost)
    # Column 0 and row 0 are where a path starts; the others are counted from 1.
    rows, columns = np.zeros(count + 1), np.zeros(count + 1)
    owner = np.zeros(count + 1, dtype=np.int64)
    for row in range(1, count + 1):
        owner[0] = row
        way = _path(cost, rows, columns, owner)
        place = way[0]
        for earlier in way[1:]:
            owner[place] = owner[earlier]
            place = earlier
    result = np.empty(count, dtype=np.int64)
    result[owner[1:] - 1] = np.arange(count)
    return result


def _path(
    cost: npt.NDArray[np.float64],
    rows: npt.NDArray[np.float64],
    columns: npt.NDArray[np.float64],
    owner: npt.NDArray[np.int64],
) -> list[int]:
    """Columns of the shortest path from a free column back to column 0; the prices of rows and columns are updated."""
    count = len(cost)
    shortest, before = np.full(count + 1, np.inf), np.zeros(count + 1, dtype=np.int64)
    used = np.zeros(count + 1, dtype=np.bool_)
    place = 0
    while True:
        used[place] = True
        row = owner[place]
        reduced = cost[row - 1] - rows[row] - columns[1:]
        better = ~used[1:] & (reduced < shortest[1:])
        shortest[1:][better] = reduced[better]
        before[1:][better] = place
        following = int(np.argmin(np.where(used, np.inf, shortest)[1:])) + 1
        step = shortest[following]
        rows[owner[used]] += step
        columns[used] -= step
        shortest[~used] -= step
        place = following
        if owner[place] == 0:
            break
    way = [place]
    while place:
        place = int(before[place])
        way.append(place)
    return way
