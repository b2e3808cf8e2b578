"""Numbers that stand for unknown channel factors, and which of them must be equal.

Every channel of every tensor has one unknown positive factor that it is divided by. Operations make factors equal or
fix them at one; what is left are the choices. Knows nothing of graphs.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt

__all__ = ["FIXED", "ChannelUnions", "Unknowns"]

# The unknowns of a tensor: int64, of the tensor's shape without the batch, 1 along axes where they are all the same.
Unknowns: TypeAlias = npt.NDArray[np.int64]

FIXED = 0
"""The unknown that is one."""


class ChannelUnions:
    """Disjoint sets of unknowns. The one of lowest number stands for its set, so `FIXED` stands for its own."""

    def __init__(self) -> None:
        self._parent = [FIXED]

    def fresh(self, count: int, rank: int) -> Unknowns:
        """New unknowns along the first of `rank` axes."""
        start = len(self._parent)
        self._parent.extend(range(start, start + count))
        return np.arange(start, start + count, dtype=np.int64).reshape(count, *(1 for _ in range(rank - 1)))

    def unite(self, first: Unknowns, second: Unknowns) -> None:
        """Make two tensors' unknowns equal, element by element, with broadcasting."""
        pairs = np.stack([item.ravel() for item in np.broadcast_arrays(first, second)], axis=1)
        for a, b in np.unique(pairs, axis=0):
            ours, theirs = self._root(int(a)), self._root(int(b))
            self._parent[max(ours, theirs)] = min(ours, theirs)

    def fix(self, unknowns: Unknowns) -> None:
        """Set unknowns to one."""
        self.unite(unknowns, np.array(FIXED))

    def merged(self, unknowns: Unknowns, axes: tuple[int, ...]) -> Unknowns:
        """The unknowns made equal along `axes`, which become 1 long."""
        for axis in axes:
            if unknowns.shape[axis] > 1:
                first = np.take(unknowns, [0], axis=axis)
                self.unite(unknowns, first)
                unknowns = first
        return unknowns

    def roots(self, unknowns: Unknowns) -> Unknowns:
        """What stands for each, same shape."""
        distinct, back = np.unique(unknowns, return_inverse=True)
        found = np.array([self._root(int(item)) for item in distinct], dtype=np.int64)
        return found[back].reshape(unknowns.shape)

    def all_fixed(self, unknowns: Unknowns) -> bool:
        """True where nothing is left to choose."""
        return not self.roots(unknowns).any()

    def _root(self, item: int) -> int:
        while self._parent[item] != item:
            self._parent[item] = self._parent[self._parent[item]]
            item = self._parent[item]
        return item
