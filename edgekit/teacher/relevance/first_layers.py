"""The range of what the first layers read: bounded pixels, carried through what stands before those layers.

Averages, copies, shifts and scales by constants are monotone in each cell, so the smallest and the largest image
give the smallest and the largest value, possibly in exchanged roles.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import fx

from edgekit.errors import BadInputError
from edgekit.teacher.relevance.batch_norm import BATCH_NORM
from edgekit.teacher.relevance.network import LayeredNetwork, Values
from edgekit.teacher.relevance.operations import Kind, kind_of, operation_of

__all__ = ["Bounds", "bounds_before_layers", "image_bounds"]

# Of the width of the range: what rounding in another order of preprocessing may add.
_SLACK = 1e-5
_MONOTONE = {
    *("aten::add", "aten::sub", "aten::rsub", "aten::mul", "aten::div", "aten::neg", BATCH_NORM),
    *("aten::relu", "aten::relu6", "aten::hardtanh", "aten::clamp", "aten::tanh"),
}


@dataclass(frozen=True)
class Bounds:
    """Smallest and largest possible value of each cell, in the shape of the tensor or broadcastable to it."""

    low: torch.Tensor
    high: torch.Tensor


def image_bounds(images: torch.Tensor, low: tuple[float, ...], high: tuple[float, ...]) -> Bounds:
    """Bounds in the shape of `images` [N, C, H, W], from one low and one high a channel.

    Raises:
        BadInputError: Another number of channels, or a pixel outside the bounds.
    """
    if images.dim() != 4 or images.shape[1] != len(low):
        raise BadInputError(
            "The images do not fit the bounds of the input.",
            expected=f"[N, {len(low)}, H, W]",
            found=str(list(images.shape)),
        )
    below, above = (images.new_tensor(bound)[None, :, None, None].expand_as(images) for bound in (low, high))
    slack = _SLACK * (above - below)
    if not bool(((images >= below - slack) & (images <= above + slack)).all()):
        raise BadInputError(
            "A pixel lies outside the bounds of the input.",
            expected=f"each channel from {low} to {high}",
            found=f"values from {float(images.min()):.4g} to {float(images.max()):.4g}",
            hint="prepare the images with the card whose bounds these are",
        )
    # A pixel beyond the bound by rounding moves the bound: contributions stay non-negative.
    return Bounds(torch.minimum(below, images), torch.maximum(above, images))


def bounds_before_layers(
    network: LayeredNetwork, values: Values, reading: set[fx.Node], bounds: Bounds
) -> dict[fx.Node, Bounds]:
    """Bounds of every node that depends on the images through sums, copies and constants alone."""
    # Outputs by side, tuples of tensors where an operation has several.
    ends: dict[fx.Node, tuple[Any, Any]] = {network.images: (bounds.low, bounds.high)}
    for node in network.graph.nodes:
        sources = [source for source in node.all_input_nodes if source in reading]
        if not sources or not all(source in ends for source in sources) or not _monotone(node, reading):
            continue
        results = []
        for side in (0, 1):
            known = {**values, **{source: ends[source][side] for source in sources}}
            arguments = fx.map_arg(node.args, known.__getitem__)
            results.append(node.target(*arguments, **fx.map_arg(node.kwargs, known.__getitem__)))
        low, high = results
        single = isinstance(low, torch.Tensor)
        ends[node] = (torch.minimum(low, high), torch.maximum(low, high)) if single else (low, high)
    return {node: Bounds(*pair) for node, pair in ends.items() if isinstance(pair[0], torch.Tensor)}


def _monotone(node: fx.Node, reading: set[fx.Node]) -> bool:
    kind, name = kind_of(node, reading), operation_of(node)
    if kind is Kind.ELEMENTWISE:
        return name in _MONOTONE
    return kind is Kind.ROUTING or (kind is Kind.SUM and name not in ("aten::sub", "aten::rsub"))
