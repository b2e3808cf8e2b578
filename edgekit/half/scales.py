"""Quantisation scales in FP16: which keep their meaning, and weights on the grid that they then span.

A scale that FP16 cannot hold well would move every value that is rounded with it. With an error of at most 2^-9 of
itself, the farthest integer (127) moves by a quarter of a step.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from edgekit.half.view import QUANTISATION, GraphView

__all__ = ["LARGEST", "HalfScales"]

LARGEST = float(np.finfo(np.float16).max)
_LARGEST_ERROR = 2.0**-9
_FARTHEST = 128.0


class HalfScales:
    """The scales of a graph's quantisation nodes.

    One that FP16 holds is rounded wherever it is read, so that a tensor is rounded on the grid that it is read from;
    FP32 copies of it hold the rounded number.

    Args:
        view: The graph.
    """

    def __init__(self, view: GraphView) -> None:
        self._view = view
        names = {node.input[1] for node in view.nodes if node.op_type in QUANTISATION}
        self._fits = {name: view.is_stored(name) and _holds(view.value(name)) for name in names}

    def fits(self, node: onnx.NodeProto) -> bool:
        """Whether FP16 holds the scale of a quantisation node."""
        return self._fits[node.input[1]]

    def largest_value(self, node: onnx.NodeProto) -> float:
        """The largest magnitude that a DequantizeLinear can answer."""
        scale = self._view.value(node.input[1]) if self._view.is_stored(node.input[1]) else np.zeros(1)
        return float(scale.max(initial=0.0)) * _FARTHEST

    def rounded(self, name: str) -> npt.NDArray[np.float32]:
        """A scale as float32, rounded to FP16 where it fits."""
        scale = self._view.value(name).astype(np.float32)
        return scale.astype(np.float16).astype(np.float32) if self._fits.get(name, False) else scale

    def on_grid(self, quantiser: onnx.NodeProto) -> npt.NDArray[np.float32]:
        """The stored values that a QuantizeLinear reads, moved to its grid: every one becomes the integer it was."""
        values = self._view.value(quantiser.input[0]).astype(np.float32)
        axis = next((item.i for item in quantiser.attribute if item.name == "axis"), 1)
        before = _along(self._view.value(quantiser.input[1]), values.ndim, axis)
        after = _along(self.rounded(quantiser.input[1]), values.ndim, axis)
        moved: npt.NDArray[np.float32] = np.clip(np.rint(values / before), -_FARTHEST, _FARTHEST - 1) * after
        return moved


def _holds(scale: npt.NDArray[Any]) -> bool:
    exact = scale.astype(np.float64)
    with np.errstate(over="ignore"):
        half = exact.astype(np.float16).astype(np.float64)
    return bool((half > 0).all() and (np.abs(half - exact) <= _LARGEST_ERROR * exact).all())


def _along(scale: npt.NDArray[Any], rank: int, axis: int) -> npt.NDArray[np.float32]:
    if scale.ndim == 0 or scale.size == 1:
        return scale.astype(np.float32).reshape([1] * rank if rank else [])
    shape = [1] * rank
    shape[axis] = -1
    return scale.astype(np.float32).reshape(shape)
