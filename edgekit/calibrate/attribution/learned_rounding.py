"""Rounding all weights of a graph so that its layers' results stay, one layer after the other.

A layer is settled with the inputs that the rounded graph gives it, so it makes up for what was lost before it: its
scales are those of least error where inputs are large, its integers those of `rounding`, and its bias takes up the mean
that is left (bias correction: Nagel et al. 2019, arXiv:1906.04721, section 4.2).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgekit.calibrate.adjustments import stored_offsets
from edgekit.calibrate.attribution.layer_inputs import LayerInputs
from edgekit.calibrate.attribution.rounding import damped, round_rows
from edgekit.calibrate.attribution.second_moments import LayerMoments, PatchReader, moments_of
from edgekit.calibrate.formats import SMALLEST_SCALE
from edgekit.calibrate.graph import ExplainedGraph
from edgekit.calibrate.placement import WeightUse
from edgekit.calibrate.qdq import quantised_weight
from edgekit.calibrate.scale_table import ScaleTable, WeightScale
from edgekit.core.progress import NULL_OBSERVER, Observer, track

__all__ = ["LearnedWeights", "learn_weights"]

_DAMPING = 0.01
# Fractions of the range that holds the largest weight: with few bits, clipping it buys finer steps for all others.
_FRACTIONS = tuple(np.linspace(1.0, 0.4, 25))

_Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class LearnedWeights:
    """What was found for the weights.

    Attributes:
        scales: Weight to its scales along output channels.
        rounding: Weight to its offsets from the nearest integers, as `Adjustments.rounding` holds them.
        bias_shifts: Bias to what is added to it.
    """

    scales: dict[str, tuple[float, ...]]
    rounding: dict[str, bytes]
    bias_shifts: dict[str, tuple[float, ...]]


def learn_weights(
    graph: ExplainedGraph,
    table: ScaleTable,
    images: npt.NDArray[np.float32],
    *,
    rounding: bool = True,
    bias_correction: bool = True,
    observer: Observer = NULL_OBSERVER,
) -> LearnedWeights:
    """Settle every quantised weight of a graph.

    Args:
        graph: The FP32 graph the table was made for, before adjustment.
        table: Scales of activations and weights; those of weights are where the search begins.
        images: float32 [N, 3, H, W], to take moments on.
        rounding: Find integers; otherwise weights are rounded to nearest.
        bias_correction: Shift biases.
        observer: Told of the progress.

    Raises:
        BadInputError: A convolution names its padding instead of saying it.
        UnavailableError: ONNX Runtime failed.
    """
    inputs = LayerInputs(graph, table)
    found = LearnedWeights({}, {}, {})
    for use in track(inputs.uses, "calibrate: rounding", observer):
        if use.weight in found.scales:
            # Tied weights: the first layer decided, and one tensor has one rounding.
            continue
        reader = PatchReader(inputs.graph, use)
        moments = moments_of(reader, inputs.batches(use, images))
        weight = inputs.graph.constant(use.weight)
        settled = _settled(reader, use, weight, moments, table, inputs.fmt.weight_limit if rounding else 0)
        scales, offsets = settled
        entry = WeightScale(use.axis, scales)
        integers = quantised_weight(weight, entry, inputs.fmt, offsets)
        shape = [1] * weight.ndim
        shape[use.axis] = -1
        values = integers.astype(np.float32) * np.asarray(scales, dtype=np.float32).reshape(shape)
        shift = _lost_mean(reader, weight, values, moments) if bias_correction else None
        bias = None
        if use.bias is not None:
            bias = inputs.graph.constant(use.bias)
            # A bias that the adjusted graph added is not in the graph that shifts are applied to.
            if shift is not None and graph.is_constant(use.bias):
                found.bias_shifts[use.bias] = tuple(float(value) for value in shift)
                bias = bias + shift.astype(np.float32)
        inputs.settle(use, values, bias)
        found.scales[use.weight] = scales
        if offsets.any():
            found.rounding[use.weight] = stored_offsets(offsets)
    return found


def _settled(
    reader: PatchReader,
    use: WeightUse,
    weight: npt.NDArray[np.float32],
    moments: LayerMoments,
    table: ScaleTable,
    limit: int,
) -> tuple[tuple[float, ...], npt.NDArray[np.int8]]:
    """Scales and offsets of one weight; a limit of 0 leaves both as they were."""
    start = np.asarray(table.weights[use.weight].scales, dtype=np.float64)
    if limit == 0:
        return tuple(float(value) for value in start), np.zeros(weight.shape, dtype=np.int8)
    matrix = damped(moments, _DAMPING)
    rows = reader.rows(weight).astype(np.float64)
    steps = _searched(rows, start.reshape(rows.shape[:2]), matrix, limit)
    # As the table will hold them: offsets count from the integers that these very scales give.
    steps = np.maximum(steps, SMALLEST_SCALE).astype(np.float32).astype(np.float64)
    result = round_rows(rows, steps, matrix, limit)
    offsets = reader.weight(result.offsets.astype(np.float32)).astype(np.int8)
    return tuple(float(value) for value in steps.reshape(-1)), offsets


def _searched(rows: _Floats, start: _Floats, matrix: _Floats, limit: int) -> _Floats:
    """The scales, [groups, rows], of least error with every input on its own."""
    energy = np.einsum("gkk->gk", matrix)[:, None, :]
    best = start
    least = np.full(start.shape, np.inf)
    for fraction in _FRACTIONS:
        steps = start * fraction
        rounded = np.clip(np.rint(rows / steps[..., None]), -limit, limit) * steps[..., None]
        error = (np.square(rounded - rows) * energy).sum(axis=-1)
        # Clipping errors do not cancel as rounding does, so a narrower range has to be better by a margin.
        better = error < least * (1.0 if fraction == 1.0 else 0.98)
        best = np.where(better, steps, best)
        least = np.where(better, error, least)
    return best


def _lost_mean(
    reader: PatchReader, weight: npt.NDArray[np.float32], values: npt.NDArray[np.float32], moments: LayerMoments
) -> _Floats:
    """What the mean of each output lost, [outputs]."""
    exact = np.einsum("grk,gk->gr", reader.rows(weight).astype(np.float64), moments.exact_mean)
    rounded = np.einsum("grk,gk->gr", reader.rows(values).astype(np.float64), moments.rounded_mean)
    lost: _Floats = (exact - rounded).reshape(-1)
    return lost
