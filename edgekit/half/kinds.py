"""Which operations of a graph compute in FP16, and why the others do not.

FP16 holds 65504 at most and 11 bits, and below 6e-5 fewer. So sums over many values, squares, quotients, roots,
exponentials and norms stay in FP32, as do the logits' own operation and the whole map branch: gradients are small, and
the map is what has to hold. What only moves or compares values computes in the type it is given.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx

from edgekit.half.scales import HalfScales
from edgekit.half.view import QUANTISATION, GraphView

__all__ = ["Kinds", "decide_kinds"]

_WEIGHTED = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
_POINTWISE = frozenset(
    {
        *("Abs", "Add", "Clip", "Elu", "Erf", "Gelu", "HardSigmoid", "HardSwish", "LeakyRelu", "Max", "Min"),
        *("Mul", "Neg", "PRelu", "Relu", "Selu", "Sigmoid", "Softplus", "Sub", "Tanh", "Where"),
    }
)
_WINDOWS = frozenset({"AveragePool", "Concat", "Resize"})
# Answer with what they are given, or compare it.
_FOLLOWING = frozenset(
    {
        *("And", "ArgMax", "Cast", "DepthToSpace", "Equal", "Expand", "Flatten", "Gather", "GlobalMaxPool"),
        *("Greater", "GreaterOrEqual", "Identity", "Less", "LessOrEqual", "MaxPool", "Not", "Pad", "ReduceMax"),
        *("ReduceMin", "Reshape", "Shape", "Size", "Slice", "SpaceToDepth", "Split", "Squeeze", "Tile", "Transpose"),
        "Unsqueeze",
    }
)


@dataclass(frozen=True)
class Kinds:
    """The decision for every node that computes on FP32 tensors, but for quantisation nodes.

    Attributes:
        half: Indices of those that compute in FP16.
        single: Index to the reason, of those that stay in FP32.
    """

    half: frozenset[int]
    single: Mapping[int, str]


def decide_kinds(view: GraphView, scales: HalfScales, logits: str) -> Kinds:
    """Decide.

    Args:
        view: The graph.
        scales: Its quantisation scales.
        logits: Name of the output that the forward path ends in.
    """
    deciding = _Deciding(view, scales, logits)
    return Kinds(frozenset(deciding.half), dict(sorted(deciding.single.items())))


class _Deciding:
    def __init__(self, view: GraphView, scales: HalfScales, logits: str) -> None:
        self.view, self.scales = view, scales
        self.forward = view.ancestors(logits)
        self.last = self._last_operations(logits)
        self.single: dict[int, str] = {}
        self.half: set[int] = set()
        for index, node in enumerate(view.nodes):
            if node.op_type in (*QUANTISATION, "Constant") or not self._touches_floats(node):
                continue
            why = self._reason(index, node)
            if why:
                self.single[index] = why
            else:
                self.half.add(index)
        self._keep_islands_together()

    def _touches_floats(self, node: onnx.NodeProto) -> bool:
        return any(self.view.is_float(name) for name in (*node.input, *node.output) if name)

    def _reason(self, index: int, node: onnx.NodeProto) -> str:
        """Why a node computes in FP32; empty where it does not."""
        if index not in self.forward:
            return "the map is computed in FP32"
        if index in self.last:
            return "logits are computed in FP32"
        if node.op_type in _FOLLOWING and self._data(node):
            maker = self._data(node)[0]
            return self.single.get(maker, "") if maker >= 0 else self._reason_of_source(node)
        if node.op_type not in (*_WEIGHTED, *_POINTWISE, *_WINDOWS):
            return f"{node.op_type} is kept in FP32"
        if node.op_type == "Mul" and node.input[0] == node.input[1]:
            return "squares leave FP16's range early"
        return self._reason_of_values(node)

    def _data(self, node: onnx.NodeProto) -> tuple[int, ...]:
        """Makers of the computed FP32 inputs of a node; -1 for an input of the graph or a quantisation node."""
        found = []
        for name in node.input:
            if name and self.view.is_float(name) and not self.view.is_stored(name):
                maker = self.view.maker(name)
                plain = maker is not None and maker.op_type not in QUANTISATION
                found.append(self.view.producer[name] if plain else -1)
        return tuple(found)

    def _reason_of_source(self, node: onnx.NodeProto) -> str:
        name = next(name for name in node.input if self.view.is_float(name) and not self.view.is_stored(name))
        return "it passes the image on" if self.view.maker(name) is None else self._reason_of_values(node)

    def _reason_of_values(self, node: onnx.NodeProto) -> str:
        for slot in self.view.free_slots(node):
            name = node.input[slot]
            maker = self.view.maker(name)
            if maker is not None and maker.op_type == "DequantizeLinear" and not self.scales.fits(maker):
                return f"FP16 cannot hold the scale of {name!r}"
            if self.view.is_stored(name) and (value := self.view.value(name)).size == 1:
                with np.errstate(over="ignore"):
                    if value.item() and not value.astype(np.float16).item():
                        return "FP16 would make a stored number zero"
        return ""

    def _last_operations(self, logits: str) -> frozenset[int]:
        """The way from the logits up to the operation with weights, as long as it is one way."""
        found: set[int] = set()
        name = logits
        while (index := self.view.producer.get(name)) is not None:
            found.add(index)
            node = self.view.nodes[index]
            before = [each for each in node.input if self.view.is_float(each) and not self.view.is_stored(each)]
            if node.op_type in _WEIGHTED or len(before) != 1:
                break
            name = before[0]
        return frozenset(found)

    def _keep_islands_together(self) -> None:
        """A pointwise operation among others in FP32 joins them: two casts would cost more than they save."""
        changed = True
        while changed:
            changed = False
            for index in sorted(self.half):
                node = self.view.nodes[index]
                makers = self._data(node)
                if node.op_type in _FOLLOWING:
                    joins = bool(makers) and makers[0] in self.single
                else:
                    joins = node.op_type in _POINTWISE and bool(makers) and all(each in self.single for each in makers)
                    joins = joins and all(reader in self.single for reader in self._readers(node))
                if joins:
                    self.half.discard(index)
                    self.single[index] = "what it reads is in FP32"
                    changed = True

    def _readers(self, node: onnx.NodeProto) -> list[int]:
        return [reader for name in node.output for reader in self.view.readers.get(name, ())]
