"""What calibration images say about single channels: how far their values reach, and how much their errors cost."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgekit.calibrate.attribution.scale_groups import ScaleGroup
from edgekit.calibrate.gradients.stream import TensorGradient
from edgekit.calibrate.graph import ExplainedGraph

__all__ = ["ChannelEvidence", "channel_shape", "collect_evidence", "evidence_shapes"]


@dataclass(frozen=True)
class ChannelEvidence:
    """One tensor, channel by channel.

    All arrays are float64 of one shape: that of the tensor without the batch, and 1 along axes that are taken together.

    Attributes:
        name: The tensor.
        low: Smallest value seen, or zero.
        high: Largest value seen, or zero.
        sensitivity: Drift that an independent error of variance one in each of the channel's values would cause: the
            sum over positions, and mean over images, of the squared gradient.
        mean_square: Mean square of the values.
    """

    name: str
    low: npt.NDArray[np.float64]
    high: npt.NDArray[np.float64]
    sensitivity: npt.NDArray[np.float64]
    mean_square: npt.NDArray[np.float64]

    @property
    def magnitude(self) -> npt.NDArray[np.float64]:
        """Largest magnitude seen."""
        return np.maximum(self.high, -self.low)

    def reduced(self, shape: tuple[int, ...]) -> ChannelEvidence:
        """The same with axes taken together where `shape` is 1."""
        axes = tuple(axis for axis, size in enumerate(shape) if size == 1 and self.low.shape[axis] != 1)
        if not axes:
            return self
        return ChannelEvidence(
            self.name,
            self.low.min(axis=axes, keepdims=True),
            self.high.max(axis=axes, keepdims=True),
            self.sensitivity.sum(axis=axes, keepdims=True),
            self.mean_square.mean(axis=axes, keepdims=True),
        )


def evidence_shapes(graph: ExplainedGraph, groups: Iterable[ScaleGroup]) -> dict[str, tuple[int, ...]]:
    """Tensors of which `choose_factors` wants to know, with the shape of their channels."""
    found: dict[str, tuple[int, ...]] = {}

    def want(name: str, shape: tuple[int, ...]) -> None:
        found[name] = tuple(map(max, shape, found.get(name, shape)))

    for group in groups:
        for member in group.members:
            want(member.tensor, member.shape)
        for link in group.links:
            for name in (link.reads, link.result):
                if name is not None:
                    want(name, channel_shape(graph, name))
    return found


def channel_shape(graph: ExplainedGraph, name: str) -> tuple[int, ...]:
    """The shape without the batch of a tensor that weights make or read: channels first, last in rows of numbers."""
    sizes = tuple(int(size or 0) for size in graph.shapes[name][1:])
    channel = 0 if len(sizes) > 2 else len(sizes) - 1
    return tuple(size if axis == channel else 1 for axis, size in enumerate(sizes))


def collect_evidence(
    batches: Iterable[Mapping[str, TensorGradient]], shapes: Mapping[str, tuple[int, ...]]
) -> dict[str, ChannelEvidence]:
    """Evidence from values and gradients, batch by batch.

    Args:
        batches: As `GradientStream.run` gives them. Tensors that are not in `shapes` are passed over.
        shapes: Tensor to the shape of its channels, as `evidence_shapes` gives it.
    """
    sums: dict[str, tuple[npt.NDArray[np.float64], ...]] = {}
    images = weighings = 0
    for batch in batches:
        first = batch[next(iter(shapes))] if shapes else None
        images += 0 if first is None else len(first.values)
        weighings += 0 if first is None else len(first.gradient)
        for name, shape in shapes.items():
            found = _of_batch(batch[name], shape)
            low, high, squares, values = sums.get(name, (np.zeros(shape),) * 4)
            sums[name] = (
                np.minimum(low, found[0]),
                np.maximum(high, found[1]),
                squares + found[2],
                values + found[3],
            )
    return {
        name: ChannelEvidence(name, low, high, squares / weighings, values / images)
        for name, (low, high, squares, values) in sums.items()
    }


def _of_batch(item: TensorGradient, shape: tuple[int, ...]) -> tuple[npt.NDArray[np.float64], ...]:
    axes = (0, *(axis + 1 for axis, size in enumerate(shape) if size == 1))
    positions = item.values[0].size // max(int(np.prod(shape)), 1)
    return (
        item.values.min(axis=axes).reshape(shape).astype(np.float64),
        item.values.max(axis=axes).reshape(shape).astype(np.float64),
        np.square(item.gradient, dtype=np.float32).sum(axis=axes, dtype=np.float64).reshape(shape),
        np.square(item.values, dtype=np.float32).sum(axis=axes, dtype=np.float64).reshape(shape) / positions,
    )
