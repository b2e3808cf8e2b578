"""What calibration images say about single channels: how far their values reach, and how much their errors cost."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgekit.calibrate.attribution.scale_groups import ScaleGroup, WeightLink
from edgekit.calibrate.gradients.stream import TensorGradient
from edgekit.calibrate.graph import ExplainedGraph

__all__ = ["ChannelEvidence", "GroupEvidence", "collect_evidence", "evidence_tensors"]


@dataclass(frozen=True)
class ChannelEvidence:
    """One tensor, channel by channel.

    All arrays are float64 of one shape: that of the tensor without the batch, and 1 along axes that are taken together.

    Attributes:
        low: Smallest value seen, or zero.
        high: Largest value seen, or zero.
        sensitivity: Drift that an independent error of variance one in each of the channel's values would cause: the
            sum over positions, and mean over images, of the squared gradient.
    """

    low: npt.NDArray[np.float64]
    high: npt.NDArray[np.float64]
    sensitivity: npt.NDArray[np.float64]

    @property
    def magnitude(self) -> npt.NDArray[np.float64]:
        """Largest magnitude seen."""
        return np.maximum(self.high, -self.low)


@dataclass(frozen=True)
class GroupEvidence:
    """What choosing factors takes.

    Attributes:
        channels: Evidence of rounded activations.
        weights: Weight to the drift that an independent error of variance one in each element would cause, summed over
            the positions of a kernel: float64 [output channels, columns]. An error of a weight is the same at every
            position of an image, so this is the mean of squared sums, not a sum of squares.
    """

    channels: Mapping[str, ChannelEvidence]
    weights: Mapping[str, npt.NDArray[np.float64]]


def evidence_tensors(groups: Iterable[ScaleGroup]) -> tuple[str, ...]:
    """The tensors whose values and gradients `collect_evidence` reads."""
    found: dict[str, None] = {}
    for group in groups:
        found.update((member.tensor, None) for member in group.members)
        found.update((name, None) for link in group.links if link.costs for name in (link.reads, link.result) if name)
    return tuple(found)


def collect_evidence(
    graph: ExplainedGraph, groups: Iterable[ScaleGroup], batches: Iterable[Mapping[str, TensorGradient]]
) -> GroupEvidence:
    """Evidence from values and gradients, batch by batch; what is kept does not grow with the images.

    Args:
        graph: The FP32 graph.
        groups: The groups.
        batches: As `GradientStream.run` gives them, with at least the tensors of `evidence_tensors`.
    """
    groups = tuple(groups)
    members = {member.tensor: member.shape for group in groups for member in group.members}
    links = {link.constant: link for group in groups for link in group.links if link.costs}
    low = {name: np.zeros(shape) for name, shape in members.items()}
    high = {name: np.zeros(shape) for name, shape in members.items()}
    squares = {name: np.zeros(shape) for name, shape in members.items()}
    weights: dict[str, npt.NDArray[np.float64]] = {}
    count = 0
    for batch in batches:
        for name, shape in members.items():
            item = batch[name]
            axes = (0, *(axis + 1 for axis, size in enumerate(shape) if size == 1))
            low[name] = np.minimum(low[name], item.values.min(axis=axes).reshape(shape))
            high[name] = np.maximum(high[name], item.values.max(axis=axes).reshape(shape))
            squares[name] += np.square(item.gradient).sum(axis=axes, dtype=np.float64).reshape(shape)
        for name, link in links.items():
            weights[name] = weights.get(name, 0.0) + _squared_weight_gradients(graph, link, batch)
        count += max((len(item.gradient) for item in batch.values()), default=0)
    channels = {name: ChannelEvidence(low[name], high[name], squares[name] / max(count, 1)) for name in members}
    return GroupEvidence(channels, {name: total / max(count, 1) for name, total in weights.items()})


def _squared_weight_gradients(
    graph: ExplainedGraph, link: WeightLink, batch: Mapping[str, TensorGradient]
) -> npt.NDArray[np.float64]:
    """The sum over images of the squared gradient by each element of a weight, summed over a kernel's positions.

    Of a kernel only the middle is looked at: a neighbour sees the same image shifted by a cell, and as many times as
    there are positions is as good as all of them at a fraction of the work.
    """
    assert link.reads is not None
    assert link.result is not None
    values, gradient = batch[link.reads].values, batch[link.result].gradient
    weight = graph.constant_shape(link.constant)
    columns = weight[link.axis]
    if values.ndim > 2 and graph.nodes[graph.producer[link.result]].op_type == "Conv":
        values, gradient = _seen_by_the_middle(graph, link, values, gradient)
    else:
        # Rows of numbers: channels last.
        values, gradient = (np.moveaxis(item, -1, 1) for item in (values, gradient))
    groups = values.shape[1] // columns
    inputs = values.reshape(len(values), groups, columns, -1)
    outputs = gradient.reshape(len(gradient), groups, gradient.shape[1] // groups, -1)
    total = np.zeros((gradient.shape[1], columns))
    for number, errors in enumerate(outputs):
        products = errors @ inputs[number % len(values)].swapaxes(1, 2)
        total += np.square(products, dtype=np.float64).reshape(total.shape)
    positions = int(np.prod(weight)) // (len(total) * columns)
    return total * positions


def _seen_by_the_middle(
    graph: ExplainedGraph, link: WeightLink, values: npt.NDArray[np.float32], gradient: npt.NDArray[np.float32]
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """What the middle of a kernel reads, position by position, and the gradients there."""
    assert link.result is not None
    node = graph.producer[link.result]
    kernel = graph.constant_shape(link.constant)[2:]
    ones = [1] * len(kernel)
    strides = graph.attribute(node, "strides", ones)
    dilations = graph.attribute(node, "dilations", ones)
    pads = graph.attribute(node, "pads", [0] * len(kernel))
    for axis, (size, stride, dilation, pad) in enumerate(zip(kernel, strides, dilations, pads, strict=False), 2):
        read = np.arange(gradient.shape[axis]) * stride + (size - 1) // 2 * dilation - pad
        inside = np.flatnonzero((read >= 0) & (read < values.shape[axis]))
        values = np.take(values, read[inside], axis=axis)
        gradient = np.take(gradient, inside, axis=axis)
    return values, gradient
