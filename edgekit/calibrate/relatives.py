"""Stored tensors of the map branch that are a weight of the forward path in other clothes.

The branch holds the backward pass of what follows the tap. There a matrix may be transposed, be divided by the number
of cells that are averaged, or have a row of zeros more for classes that are not there; and a kernel may be the one from
before a batch norm was folded into it, which differs by a factor for each output channel. When slices of the original
are scaled, so must be those of its relatives.

When the original is rounded, so are its copies, which are the same numbers in the same or in reverse order. Other
relatives are not: they are products that export has worked out, and each row would need a factor to be rounded with its
original. On five trained networks that moved 1 - cosine of the maps by less than a hundredth of itself at 8 bits.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from edgekit.calibrate.graph import ExplainedGraph

__all__ = ["WeightRelative", "WeightRelatives"]

# Folding and dividing round each weight once or twice.
_TOLERANCE = 1e-5


@dataclass(frozen=True)
class WeightRelative:
    """One of them.

    Attributes:
        name: Name of the stored tensor.
        transposed: Its axes are those of the original in reverse.
    """

    name: str
    transposed: bool


class WeightRelatives:
    """The relatives of the weights of one graph. What the forward path reads is nobody's relative.

    Args:
        graph: The FP32 graph.
    """

    def __init__(self, graph: ExplainedGraph) -> None:
        self.graph = graph
        self._known: dict[str, tuple[WeightRelative, ...]] = {}

    @cached_property
    def _candidates(self) -> tuple[str, ...]:
        forward = set(self.graph.forward)
        return tuple(
            name
            for name in self.graph.constant_names
            if len(self.graph.constant_shape(name)) > 1
            and not any(edge.node in forward for edge in self.graph.readers.get(name, ()))
        )

    def of(self, weight: str) -> tuple[WeightRelative, ...]:
        """The relatives of one stored tensor, in graph order."""
        if weight not in self._known:
            shape = self.graph.constant_shape(weight)
            self._known[weight] = () if len(shape) < 2 else tuple(self._found(weight, shape))
        return self._known[weight]

    def copies(self, weight: str) -> tuple[WeightRelative, ...]:
        """Those of the relatives that are equal to it, as they are or transposed, in graph order."""
        original = self.graph.constant(weight)
        found = []
        for name in self._candidates:
            shape = self.graph.constant_shape(name)
            if name == weight or shape not in (original.shape, original.shape[::-1]):
                continue
            value = self.graph.constant(name)
            same = np.array_equal(value, original)
            if same or np.array_equal(value, original.T):
                found.append(WeightRelative(name, not same))
        return tuple(found)

    def _found(self, weight: str, shape: tuple[int, ...]) -> list[WeightRelative]:
        found = []
        original = self.graph.constant(weight)
        for name in self._candidates:
            other = self.graph.constant_shape(name)
            if name == weight or len(other) != len(shape):
                continue
            for turned in (original, original.T):
                if _may_hold(other, turned.shape) and _is_related(self.graph.constant(name), turned):
                    found.append(WeightRelative(name, turned is not original))
                    break
        return found


def _may_hold(shape: tuple[int, ...], original: tuple[int, ...]) -> bool:
    return shape == original or (len(shape) == 2 and shape[1:] == original[1:] and shape[0] > original[0])


def _is_related(value: npt.NDArray[np.float32], original: npt.NDArray[np.float32]) -> bool:
    count = len(original)
    if value[count:].any():
        return False
    if np.array_equal(value[:count], original):
        return True
    rows, ours = value[:count].reshape(count, -1).astype(np.float64), original.reshape(count, -1).astype(np.float64)
    if rows.shape[1] == 1:
        # Any two columns differ by a factor for each row.
        return False
    square = (rows * rows).sum(axis=1)
    factors = (rows * ours).sum(axis=1) / np.where(square > 0, square, 1.0)
    apart = np.abs(ours - factors[:, None] * rows).max(axis=1)
    return bool((apart <= _TOLERANCE * np.abs(ours).max(axis=1)).all())
