"""What rounding the weights does to the mean of each output, from the mean image of what a layer reads.

A layer is linear, so its mean output is the layer applied to its mean input: with W^ the rounded weights, the error
W^ - W shifts each output channel by a constant that the bias can take up (bias correction: Nagel et al. 2019,
arXiv:1906.04721, section 4.2). One mean image a layer is all it takes, borders included. What clipping and rounding of
activations add is left out; `learned_rounding` sees that, layer by layer, at the price of a pass for each.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

import numpy as np
import numpy.typing as npt

from edgekit.calibrate.attribution.second_moments import PatchReader
from edgekit.calibrate.formats import number_format
from edgekit.calibrate.gradients.stream import TensorGradient
from edgekit.calibrate.graph import ExplainedGraph
from edgekit.calibrate.placement import Placement
from edgekit.calibrate.qdq import quantised_weight
from edgekit.calibrate.scale_table import ScaleTable

__all__ = ["MeanImages", "mean_shifts"]


class MeanImages:
    """Mean images of some activations, collected from batches that stream by.

    Args:
        tensors: The activations.
    """

    def __init__(self, tensors: Iterable[str]) -> None:
        self.tensors = frozenset(tensors)
        self._sums: dict[str, npt.NDArray[np.float64]] = {}
        self._count = 0

    def watching(
        self, batches: Iterable[dict[str, TensorGradient]], others: frozenset[str]
    ) -> Iterator[dict[str, TensorGradient]]:
        """The same batches with only the tensors `others` left in them."""
        for batch in batches:
            for name in self.tensors & batch.keys():
                values = batch[name].values
                self._sums[name] = self._sums.get(name, 0.0) + values.sum(axis=0, dtype=np.float64)
            self._count += len(next(iter(batch.values())).values) if batch else 0
            for name in batch.keys() - others:
                del batch[name]
            yield batch

    def of(self, tensor: str) -> npt.NDArray[np.float32]:
        """The mean image of one tensor, float32 [1, ...]."""
        mean: npt.NDArray[np.float32] = (self._sums[tensor] / max(self._count, 1)).astype(np.float32)[None]
        return mean


def mean_shifts(
    graph: ExplainedGraph, placement: Placement, table: ScaleTable, means: MeanImages
) -> dict[str, tuple[float, ...]]:
    """What to add to the biases of layers so that rounding their weights leaves their mean outputs as they are.

    Args:
        graph: The graph the weights are read from; the adjusted one.
        placement: Its placement.
        table: Has the weights' scales.
        means: Mean images of what the layers read.

    Raises:
        BadInputError: A convolution names its padding instead of saying it.
    """
    shifts: dict[str, tuple[float, ...]] = {}
    fmt = number_format(table.number_format)
    readers = Counter(use.bias for use in placement.weights)
    for use in placement.weights:
        # What two layers add can make up for one of them only.
        if use.bias is None or readers[use.bias] > 1:
            continue
        reader = PatchReader(graph, use)
        weight = graph.constant(use.weight)
        entry = table.weights[use.weight]
        shape = [1] * weight.ndim
        shape[entry.axis] = -1
        scales = np.asarray(entry.scales, dtype=np.float32).reshape(shape)
        integers = quantised_weight(weight, entry, fmt)
        error = reader.rows(weight - integers.astype(np.float32) * scales).astype(np.float64)
        mean = reader.patches(means.of(use.data)).mean(axis=1, dtype=np.float64)
        shifts[use.bias] = tuple(float(value) for value in np.einsum("grk,gk->gr", error, mean).reshape(-1))
    return shifts
