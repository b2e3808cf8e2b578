"""Checking a Q/DQ graph against what TensorRT's parser accepts and its fusions need.

Written from the rules and not from our placement, so that the one can be tested by the other.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from fnmatch import fnmatchcase
from typing import Any

import numpy as np
from onnx import TensorProto, numpy_helper

from edgekit.calibrate.placement import ACTIVATION_OPS, DATA_MOVERS

__all__ = ["check_tensorrt_rules", "stored_tensors"]

# Fuse with the convolution before them, as Relu and Clip do.
_FUSED_OPS = ("BatchNormalization", "HardSwish", "LeakyRelu", "PRelu", "Sigmoid")
_NARROW = 16
_PAIR = ("QuantizeLinear", "DequantizeLinear")


def check_tensorrt_rules(model: Any, exclude: Iterable[str] = ()) -> tuple[str, ...]:
    """What TensorRT would refuse or fail to fuse in a Q/DQ graph.

    Args:
        model: An `onnx.ModelProto` with explicit QuantizeLinear and DequantizeLinear.
        exclude: Patterns of names of operations that somebody wants in float, as `calibrate.exclude`. An addition among
            them need not fuse into an integer kernel.

    Returns:
        A sentence for each violation, empty for a sound graph.
    """
    return tuple(_Checker(model, tuple(exclude)).violations())


def stored_tensors(model: Any) -> dict[str, Any]:
    """Every `onnx.TensorProto` that a model stores, by name: initialisers, and the values of Constant nodes."""
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    return stored | {
        node.output[0]: item.t
        for node in model.graph.node
        if node.op_type == "Constant"
        for item in node.attribute
        if item.name == "value"
    }


class _Checker:
    def __init__(self, model: Any, exclude: tuple[str, ...]) -> None:
        self.exclude = exclude
        self.nodes = tuple(model.graph.node)
        self.stored = stored_tensors(model)
        self.producer = {name: node for node in self.nodes for name in node.output if name not in self.stored}
        self.readers: dict[str, list[Any]] = {}
        for node in self.nodes:
            for name in node.input:
                self.readers.setdefault(name, []).append(node)

    def violations(self) -> Iterator[str]:
        for node in self.nodes:
            if node.op_type in _PAIR:
                yield from self._number_format(node)
            if node.op_type in ("Conv", "ConvTranspose", "Gemm", "MatMul"):
                yield from self._weighted(node)
                yield from self._unprofitable(node)
            if node.op_type == "Add":
                yield from self._addition(node)
            if node.op_type in ("Add", "Mul"):
                yield from self._half_quantised(node)
            if node.op_type == "QuantizeLinear":
                yield from self._moved(node)
            if node.op_type in (*ACTIVATION_OPS, *_FUSED_OPS):
                yield from self._between(node)
        for name, readers in self.readers.items():
            if sum(node.op_type == "QuantizeLinear" for node in readers) > 1:
                yield f"{name}: more than one QuantizeLinear on a tensor"

    def _number_format(self, node: Any) -> Iterator[str]:
        where = node.name or node.output[0]
        if node.input[0] in self.stored and self.stored[node.input[0]].data_type == TensorProto.INT32:
            yield f"{where}: an int32 tensor cannot be dequantised"
        if len(node.input) != 3 or node.input[2] not in self.stored:
            yield f"{where}: the zero point must be written out as stored int8 zeros"
            return
        if node.input[1] not in self.stored:
            yield f"{where}: the scale is not stored"
            return
        zero, scale = (numpy_helper.to_array(self.stored[name]) for name in (node.input[2], node.input[1]))
        if zero.dtype != np.int8 or zero.any():
            yield f"{where}: the zero point is not int8 zero"
        if not (np.isfinite(scale).all() and (scale > 0).all()):
            yield f"{where}: a scale is not positive"
        if scale.ndim and not self._is_weight(node.input[0]):
            yield f"{where}: an activation has more than one scale"
        elif scale.ndim:
            yield from self._axis_length(node, scale.size, where)

    def _axis_length(self, node: Any, scales: int, where: str) -> Iterator[str]:
        dims = self._stored_dims(node)
        axis = next((item.i for item in node.attribute if item.name == "axis"), 1)
        if not -len(dims) <= axis < len(dims) or dims[axis] != scales:
            yield f"{where}: {scales} scales do not fit axis {axis} of a weight of shape {dims}"

    def _is_weight(self, name: str) -> bool:
        before = self.producer.get(name)
        return name in self.stored or (before is not None and before.input[0] in self.stored)

    def _pair_of(self, name: str) -> Any | None:
        """The DequantizeLinear whose output `name` is, or None."""
        node = self.producer.get(name)
        return node if node is not None and node.op_type == "DequantizeLinear" else None

    def _origin(self, name: str) -> Any | None:
        """The operation whose result `name` is, looking through a pair."""
        node = self.producer.get(name)
        while node is not None and node.op_type in _PAIR:
            node = self.producer.get(node.input[0])
        return node

    def _weighted(self, node: Any) -> Iterator[str]:
        data, weight = self._pair_of(node.input[0]), self._pair_of(node.input[1])
        if (data is None) != (weight is None):
            yield f"{node.name}: data and weights must be quantised together"
        if len(node.input) > 2 and node.input[2] not in ("", *self.stored):
            yield f"{node.name}: the bias is not a stored float tensor"
        if weight is None:
            return
        scale = numpy_helper.to_array(self.stored[weight.input[1]])
        axis = next((item.i for item in weight.attribute if item.name == "axis"), 1)
        if scale.ndim and axis != _output_axis(node, len(self._stored_dims(weight))):
            yield f"{node.name}: weights are not scaled along their output channels"

    def _stored_dims(self, node: Any) -> list[int]:
        """Shape of the stored tensor that a quantisation node of a weight reads."""
        name = node.input[0]
        if name not in self.stored:
            name = self.producer[name].input[0]
        return list(self.stored[name].dims)

    def _unprofitable(self, node: Any) -> Iterator[str]:
        """Shapes that are no faster in integers: thin convolutions, and products with a vector."""
        weight = self._pair_of(node.input[1])
        if weight is None or not self._is_weight(weight.input[0]):
            return
        dims = self._stored_dims(weight)
        if node.op_type in ("Gemm", "MatMul"):
            if dims[_output_axis(node, len(dims))] == 1:
                yield f"{node.name}: a product with a vector gains nothing in integers"
        elif node.op_type == "Conv" and not self._pays(node, dims):
            yield f"{node.name}: a convolution of {dims} is too thin to be faster in integers"

    def _pays(self, node: Any, dims: list[int]) -> bool:
        groups = next((item.i for item in node.attribute if item.name == "group"), 1)
        outputs, inputs, *kernel = dims[0], dims[1] * groups, *dims[2:]
        if groups > 1:
            return outputs % 8 == 0 and all(side >= 3 for side in kernel)
        if outputs >= _NARROW and inputs >= _NARROW:
            return True
        one_fits = outputs % 8 == 0 or inputs % 8 == 0
        return one_fits and (self._is_first(node) or outputs >= _NARROW or inputs >= _NARROW) and len(set(kernel)) == 1

    def _between(self, node: Any) -> Iterator[str]:
        origin = self._origin(node.input[0])
        if self._pair_of(node.input[0]) is not None and origin is not None and origin.op_type == "Conv":
            yield f"{node.name}: a pair stands between a convolution and the operation it fuses with"

    def _addition(self, node: Any) -> Iterator[str]:
        if not self._is_residual(node) or any(fnmatchcase(node.name, pattern) for pattern in self.exclude):
            return
        pairs = [self._pair_of(name) is not None for name in node.input]
        if all(pairs):
            yield f"{node.name}: both inputs are quantised, so the convolution cannot do the addition"
        if not any(pairs) and self._feeds_quantiser(node):
            yield f"{node.name}: the skip input is not quantised although the result is"

    def _is_first(self, node: Any) -> bool:
        """True where no operation with weights comes before."""
        pending, seen = [node.input[0]], set()
        while pending:
            before = self.producer.get(pending.pop())
            if before is None or before.output[0] in seen:
                continue
            if before.op_type in ("Conv", "ConvTranspose", "Gemm", "MatMul"):
                return False
            seen.add(before.output[0])
            pending.extend(before.input)
        return True

    def _half_quantised(self, node: Any) -> Iterator[str]:
        """Two results that no integer convolution joins: both are integers, and the result too, or none is."""
        if any(name in self.stored for name in node.input) or any(
            fnmatchcase(node.name, pattern) for pattern in self.exclude
        ):
            return
        origins = [self._origin(name) for name in node.input]
        if any(origin is not None and origin.op_type == "Conv" for origin in origins):
            return
        pairs = [self._pair_of(name) is not None for name in node.input]
        if any(pairs) and not all(pairs) and self._feeds_quantiser(node):
            yield f"{node.name}: one of two inputs is quantised, and no convolution fuses with it"

    def _is_residual(self, node: Any) -> bool:
        """True for an addition of two computed tensors that an integer convolution could do, reading one of them."""
        if any(name in self.stored for name in node.input):
            return False
        origins = [self._origin(name) for name in node.input]
        return any(
            origin is not None
            and origin.op_type == "Conv"
            and self._pair_of(origin.input[0]) is not None
            and self._is_read_once(origin.output[0])
            for origin in origins
        )

    def _is_read_once(self, name: str) -> bool:
        """True where one operation reads a tensor, looking through a pair."""
        readers = self.readers.get(name, [])
        while len(readers) == 1 and readers[0].op_type in _PAIR:
            readers = self.readers.get(readers[0].output[0], [])
        return len(readers) == 1

    def _feeds_quantiser(self, node: Any) -> bool:
        following = self.readers.get(node.output[0], [])
        if len(following) == 1 and following[0].op_type in ACTIVATION_OPS:
            following = self.readers.get(following[0].output[0], [])
        return any(item.op_type == "QuantizeLinear" for item in following)

    def _moved(self, quantiser: Any) -> Iterator[str]:
        node = self.producer.get(quantiser.input[0])
        if node is None or node.op_type not in DATA_MOVERS:
            return
        name = node.name
        while node is not None and node.op_type in DATA_MOVERS:
            node = self.producer.get(node.input[0])
        if node is None or node.op_type != "DequantizeLinear":
            return
        scales = [numpy_helper.to_array(self.stored[item.input[1]]) for item in (node, quantiser)]
        if not np.array_equal(*scales):
            yield f"{name}: moves data between two scales"


def _output_axis(node: Any, rank: int) -> int:
    if node.op_type == "MatMul":
        return rank - 1
    if node.op_type == "Gemm":
        return 0 if any(item.name == "transB" and item.i for item in node.attribute) else 1
    return 1 if node.op_type == "ConvTranspose" else 0
