"""Moments of what a layer's weights are multiplied with: all that the layer's error depends on, however many images.

With x one patch as FP32 has it, x^ the same patch as the rounded graph has it, w a row of weights and w^ its rounded
form, the layer's error is w^ x^ - w x. Of its variance the rounding of w decides the part that E[x^ x^'] gives, and
of its mean that of the means.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgekit.calibrate.attribution.layer_inputs import InputPair
from edgekit.calibrate.graph import ExplainedGraph
from edgekit.calibrate.placement import WeightUse
from edgekit.errors import BadInputError

__all__ = ["LayerMoments", "PatchReader", "moments_of"]

# Rows of patches that are multiplied at once.
_ROWS = 8192


@dataclass(frozen=True)
class LayerMoments:
    """Covariances and means of the patches of one layer, a matrix for each group of channels.

    Attributes:
        count: Number of patches.
        rounded: float32 [groups, K, K], the covariance of x^; K is channels of a group times places of the kernel.
        rounded_mean: float64 [groups, K], E x^.
        exact_mean: float64 [groups, K], E x.
    """

    count: int
    rounded: npt.NDArray[np.float32]
    rounded_mean: npt.NDArray[np.float64]
    exact_mean: npt.NDArray[np.float64]


class PatchReader:
    """Cuts a layer's input into patches, and a layer's weight into the rows that they are multiplied with.

    Args:
        graph: The graph.
        use: A Conv of any stride, dilation and grouping, a Gemm or a MatMul.

    Raises:
        BadInputError: A Conv names its padding ("SAME_UPPER") instead of saying it.
    """

    def __init__(self, graph: ExplainedGraph, use: WeightUse) -> None:
        self.shape = graph.constant_shape(use.weight)
        self.axis = use.axis
        self.convolution = graph.nodes[use.node].op_type == "Conv"
        self.groups = 1
        if self.convolution:
            spatial = len(self.shape) - 2
            if graph.attribute(use.node, "auto_pad", b"NOTSET") not in (b"NOTSET", b"VALID"):
                raise BadInputError("A convolution does not say its padding.", where=graph.nodes[use.node].name)
            self.groups = int(graph.attribute(use.node, "group", 1))
            self._strides = tuple(graph.attribute(use.node, "strides", [1] * spatial))
            self._dilations = tuple(graph.attribute(use.node, "dilations", [1] * spatial))
            pads = list(graph.attribute(use.node, "pads", [0] * (2 * spatial)))
            self._pads = tuple(zip(pads[:spatial], pads[spatial:], strict=True))

    def rows(self, weight: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """A weight of the layer as [groups, outputs of a group, K]; a view or a copy."""
        turned = weight if self.axis == 0 else weight.T
        return turned.reshape(self.groups, turned.shape[0] // self.groups, -1)

    def weight(self, rows: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """The inverse of `rows`."""
        if self.axis == 0:
            return rows.reshape(self.shape)
        return np.ascontiguousarray(rows.reshape(self.shape[::-1]).T)

    def patches(self, values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """What the rows are multiplied with, float32 [groups, patches, K]."""
        if not self.convolution:
            return values.reshape(1, -1, values.shape[-1])
        kernel = self.shape[2:]
        padded = np.pad(values, ((0, 0), (0, 0), *self._pads))
        spans = tuple((size - 1) * dilation + 1 for size, dilation in zip(kernel, self._dilations, strict=True))
        axes = tuple(range(2, 2 + len(kernel)))
        windows = np.lib.stride_tricks.sliding_window_view(padded, spans, axis=axes)
        places = tuple(slice(None, None, stride) for stride in self._strides)
        taps = tuple(slice(None, None, dilation) for dilation in self._dilations)
        windows = windows[(slice(None), slice(None), *places, *taps)]
        # [N, C, *places, *kernel] -> [groups, N, *places, C of a group, *kernel]
        count, channels = windows.shape[:2]
        grouped = windows.reshape(count, self.groups, channels // self.groups, *windows.shape[2:])
        middle = len(kernel)
        order = (1, 0, *range(3, 3 + middle), 2, *range(3 + middle, 3 + 2 * middle))
        turned = grouped.transpose(order)
        return np.ascontiguousarray(turned).reshape(self.groups, -1, int(np.prod(self.shape[1:])))


def moments_of(reader: PatchReader, pairs: Iterable[InputPair]) -> LayerMoments:
    """Stream batches into moments.

    Sums are taken about the first batch's mean, so that float32 holds the covariance of channels that hardly vary.
    """
    sums = None
    for pair in pairs:
        exact, rounded = reader.patches(pair.exact), reader.patches(pair.rounded)
        if sums is None:
            sums = _Sums(rounded.mean(axis=1, keepdims=True))
        sums.add(exact, rounded)
    if sums is None:
        raise BadInputError("There are no images to take moments of.")
    return sums.result()


class _Sums:
    def __init__(self, centre: npt.NDArray[np.float32]) -> None:
        groups, _, size = centre.shape
        self.centre = centre
        self.count = 0
        self.squares = np.zeros((groups, size, size), dtype=np.float32)
        self.rounded = np.zeros((groups, size), dtype=np.float64)
        self.exact = np.zeros((groups, size), dtype=np.float64)

    def add(self, exact: npt.NDArray[np.float32], rounded: npt.NDArray[np.float32]) -> None:
        self.count += exact.shape[1]
        exact, rounded = exact - self.centre, rounded - self.centre
        self.exact += exact.sum(axis=1, dtype=np.float64)
        self.rounded += rounded.sum(axis=1, dtype=np.float64)
        self.squares += rounded.transpose(0, 2, 1) @ rounded

    def result(self) -> LayerMoments:
        exact, rounded = self.exact / self.count, self.rounded / self.count
        squares = self.squares / np.float32(self.count)
        squares -= (rounded[:, :, None] * rounded[:, None, :]).astype(np.float32)
        centre = self.centre[:, 0].astype(np.float64)
        return LayerMoments(self.count, squares, rounded + centre, exact + centre)
