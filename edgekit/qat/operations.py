"""What the operators of an exported forward path compute, in torch, so that it can be differentiated twice.

Semantics are those of the ONNX operator reference, in the operator sets that the export writes. Constants that say
where or how much (shapes, axes, bounds of slices) come in as tensors on the CPU and are read as numbers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import onnx
import torch
from torch.nn import functional

from edgekit.qat.nodes import NodeView, Operation
from edgekit.qat.spatial import average_pool, convolve, max_pool

__all__ = ["OPERATIONS"]

_Inputs = Sequence[torch.Tensor | None]


def _at(inputs: _Inputs, slot: int) -> torch.Tensor | None:
    return inputs[slot] if slot < len(inputs) else None


def _first(inputs: _Inputs) -> torch.Tensor:
    return _needed(inputs, 0)


def _needed(inputs: _Inputs, slot: int) -> torch.Tensor:
    tensor = inputs[slot]
    assert tensor is not None, "the ONNX checker refuses a node without it"
    return tensor


def _integers(tensor: torch.Tensor) -> list[int]:
    return [int(number) for number in tensor.reshape(-1).tolist()]


def _listed(node: NodeView, inputs: _Inputs, name: str, slot: int) -> list[int] | None:
    """Integers that are an attribute in older operator sets and an input in newer ones."""
    tensor = _at(inputs, slot)
    if tensor is not None:
        return _integers(tensor)
    stored = node.get(name, None)
    return None if stored is None else list(stored)


def _unary(function: Callable[[torch.Tensor], torch.Tensor]) -> Operation:
    return lambda _node, inputs: function(_first(inputs))


def _binary(function: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> Operation:
    return lambda _node, inputs: function(_first(inputs), _needed(inputs, 1))


def _div(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    # ONNX divides integers towards zero.
    return left / right if left.is_floating_point() else torch.div(left, right, rounding_mode="trunc")


def _folded(function: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> Operation:
    def operation(_node: NodeView, inputs: _Inputs) -> torch.Tensor:
        result = _first(inputs)
        for slot in range(1, len(inputs)):
            result = function(result, _needed(inputs, slot))
        return result

    return operation


def _gemm(node: NodeView, inputs: _Inputs) -> torch.Tensor:
    left, right, bias = _first(inputs), _needed(inputs, 1), _at(inputs, 2)
    left = left.T if node.get("transA", 0) else left
    right = right.T if node.get("transB", 0) else right
    alpha, beta = node.get("alpha", 1.0), node.get("beta", 1.0)
    if bias is None:
        product = left @ right
        return product if alpha == 1 else product * alpha
    return torch.addmm(bias, left, right, beta=beta, alpha=alpha)


def _clip(_node: NodeView, inputs: _Inputs) -> torch.Tensor:
    low, high = _at(inputs, 1), _at(inputs, 2)
    if low is None and high is None:
        return _first(inputs)
    return torch.clamp(_first(inputs), None if low is None else low.item(), None if high is None else high.item())


def _hard_sigmoid(node: NodeView, inputs: _Inputs) -> torch.Tensor:
    return torch.clamp(_first(inputs) * node.get("alpha", 0.2) + node.get("beta", 0.5), 0.0, 1.0)


def _batch_norm(node: NodeView, inputs: _Inputs) -> torch.Tensor:
    if node.results > 1 or node.get("training_mode", 0):
        raise node.refused("is in training mode", "stored statistics")
    x, weight, bias, mean, variance = (_needed(inputs, slot) for slot in range(5))
    return functional.batch_norm(x, mean, variance, weight, bias, eps=node.get("epsilon", 1e-5))


def _instance_norm(node: NodeView, inputs: _Inputs) -> torch.Tensor:
    return functional.instance_norm(
        _first(inputs), weight=_needed(inputs, 1), bias=_needed(inputs, 2), eps=node.get("epsilon", 1e-5)
    )


def _layer_norm(node: NodeView, inputs: _Inputs) -> torch.Tensor:
    x, weight, bias = _first(inputs), _needed(inputs, 1), _at(inputs, 2)
    axis = node.get("axis", -1) % x.dim()
    shape = x.shape[axis:]
    return functional.layer_norm(
        x, shape, weight.expand(shape), None if bias is None else bias.expand(shape), node.get("epsilon", 1e-5)
    )


def _softmax(node: NodeView, inputs: _Inputs) -> torch.Tensor:
    return torch.softmax(_first(inputs), node.get("axis", -1))


def _gelu(node: NodeView, inputs: _Inputs) -> torch.Tensor:
    return functional.gelu(_first(inputs), approximate=node.get("approximate", "none"))


def _leaky_relu(node: NodeView, inputs: _Inputs) -> torch.Tensor:
    return functional.leaky_relu(_first(inputs), node.get("alpha", 0.01))


def _elu(node: NodeView, inputs: _Inputs) -> torch.Tensor:
    return functional.elu(_first(inputs), node.get("alpha", 1.0))


def _prelu(_node: NodeView, inputs: _Inputs) -> torch.Tensor:
    x, slope = _first(inputs), _needed(inputs, 1)
    return torch.where(x < 0, x * slope, x)


def _reduced(function: Callable[[torch.Tensor, list[int], bool], torch.Tensor]) -> Operation:
    def operation(node: NodeView, inputs: _Inputs) -> torch.Tensor:
        x = _first(inputs)
        axes = _listed(node, inputs, "axes", 1)
        if not axes:
            if node.get("noop_with_empty_axes", 0):
                return x
            axes = list(range(x.dim()))
        return function(x, axes, bool(node.get("keepdims", 1)))

    return operation


def _pooled_globally(function: Callable[..., torch.Tensor]) -> Operation:
    return lambda _node, inputs: function(_first(inputs), list(range(2, _first(inputs).dim())), True)


def _flatten(node: NodeView, inputs: _Inputs) -> torch.Tensor:
    x = _first(inputs)
    axis = node.get("axis", 1)
    axis = axis if axis >= 0 else axis + x.dim()
    return x.reshape(math.prod(x.shape[:axis]), -1)


def _reshape(node: NodeView, inputs: _Inputs) -> torch.Tensor:
    x, wanted = _first(inputs), _integers(_needed(inputs, 1))
    if not node.get("allowzero", 0):
        wanted = [x.shape[place] if size == 0 else size for place, size in enumerate(wanted)]
    return x.reshape(wanted)


def _transpose(node: NodeView, inputs: _Inputs) -> torch.Tensor:
    x = _first(inputs)
    return x.permute(*node.get("perm", None) or reversed(range(x.dim())))


def _squeeze(node: NodeView, inputs: _Inputs) -> torch.Tensor:
    axes = _listed(node, inputs, "axes", 1)
    return _first(inputs).squeeze() if axes is None else _first(inputs).squeeze(tuple(axes))


def _unsqueeze(node: NodeView, inputs: _Inputs) -> torch.Tensor:
    x = _first(inputs)
    axes = _listed(node, inputs, "axes", 1) or []
    rank = x.dim() + len(axes)
    for axis in sorted(axis % rank for axis in axes):
        x = x.unsqueeze(axis)
    return x


def _slice(_node: NodeView, inputs: _Inputs) -> torch.Tensor:
    x = _first(inputs)
    starts, ends = _integers(_needed(inputs, 1)), _integers(_needed(inputs, 2))
    axes = list(range(len(starts))) if (given := _at(inputs, 3)) is None else _integers(given)
    steps = [1] * len(starts) if (given := _at(inputs, 4)) is None else _integers(given)
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        size = x.shape[axis]
        if step > 0:
            chosen = [slice(None)] * (axis % x.dim()) + [slice(start, end, step)]
            x = x[tuple(chosen)]
        else:
            # Backwards, which torch has no slices for. What Python's slices do with these bounds is what ONNX says.
            places = list(range(*slice(start, end if end >= -size else None, step).indices(size)))
            x = x.index_select(axis, torch.tensor(places, dtype=torch.int64, device=x.device))
    return x


def _split(node: NodeView, inputs: _Inputs) -> tuple[torch.Tensor, ...]:
    x, axis = _first(inputs), node.get("axis", 0)
    sizes = _listed(node, inputs, "split", 1)
    if sizes is not None:
        return tuple(torch.split(x, sizes, axis))
    each = -(-x.shape[axis] // node.get("num_outputs", node.results))
    return tuple(torch.split(x, each, axis))


def _pad(node: NodeView, inputs: _Inputs) -> torch.Tensor:
    x, pads = _first(inputs), _integers(_needed(inputs, 1))
    mode = node.get("mode", "constant")
    if mode != "constant":
        raise node.refused(f"has the mode {mode!r}", "padding with one value")
    value = _at(inputs, 2)
    given = _at(inputs, 3)
    axes = list(range(x.dim())) if given is None else [axis % x.dim() for axis in _integers(given)]
    before, behind = [0] * x.dim(), [0] * x.dim()
    for place, axis in enumerate(axes):
        before[axis], behind[axis] = pads[place], pads[place + len(axes)]
    ordered = [pad for axis in reversed(range(x.dim())) for pad in (before[axis], behind[axis])]
    return functional.pad(x, ordered, value=0.0 if value is None else value.item())


def _gather(node: NodeView, inputs: _Inputs) -> torch.Tensor:
    x, places = _first(inputs), _needed(inputs, 1)
    axis = node.get("axis", 0) % x.dim()
    if places.dim() == 0:
        return x.select(axis, int(places))
    wrapped = torch.where(places < 0, places + x.shape[axis], places).to(x.device)
    chosen = x.index_select(axis, wrapped.reshape(-1))
    return chosen.reshape(*x.shape[:axis], *places.shape, *x.shape[axis + 1 :])


def _cast(node: NodeView, inputs: _Inputs) -> torch.Tensor:
    wanted = onnx.helper.tensor_dtype_to_np_dtype(node.get("to", onnx.TensorProto.FLOAT))
    kinds = {"float32": torch.float32, "float64": torch.float64, "int64": torch.int64, "int32": torch.int32}
    kinds["bool"] = torch.bool
    if wanted.name not in kinds:
        raise node.refused(f"makes {wanted.name}", "one of " + ", ".join(kinds))
    return _first(inputs).to(kinds[wanted.name])


def _shape(node: NodeView, inputs: _Inputs) -> torch.Tensor:
    sizes = list(_first(inputs).shape)
    return torch.tensor(sizes[node.get("start", 0) : node.get("end", None)], dtype=torch.int64)


def _expand(_node: NodeView, inputs: _Inputs) -> torch.Tensor:
    x, wanted = _first(inputs), _integers(_needed(inputs, 1))
    # Either may have fewer dimensions, and either ones where the other has more.
    rank = max(x.dim(), len(wanted))
    own, other = [1] * (rank - x.dim()) + list(x.shape), [1] * (rank - len(wanted)) + wanted
    return x.expand([size if size != 1 else further for size, further in zip(own, other, strict=True)])


def _concat(node: NodeView, inputs: _Inputs) -> torch.Tensor:
    return torch.cat([tensor for tensor in inputs if tensor is not None], node.get("axis", 0))


_TABLE: dict[str, Any] = {
    "Abs": _unary(torch.abs),
    "Add": _binary(torch.add),
    "AveragePool": average_pool,
    "BatchNormalization": _batch_norm,
    "Cast": _cast,
    "Clip": _clip,
    "Concat": _concat,
    "Conv": convolve,
    "Div": _binary(_div),
    "Elu": _elu,
    "Erf": _unary(torch.erf),
    "Exp": _unary(torch.exp),
    "Expand": _expand,
    "Flatten": _flatten,
    "Gather": _gather,
    "Gelu": _gelu,
    "Gemm": _gemm,
    "GlobalAveragePool": _pooled_globally(torch.mean),
    "GlobalMaxPool": _pooled_globally(torch.amax),
    "HardSigmoid": _hard_sigmoid,
    "HardSwish": _unary(functional.hardswish),
    "Identity": _unary(lambda x: x),
    "InstanceNormalization": _instance_norm,
    "LayerNormalization": _layer_norm,
    "LeakyRelu": _leaky_relu,
    "Log": _unary(torch.log),
    "MatMul": _binary(torch.matmul),
    "Max": _folded(torch.maximum),
    "MaxPool": max_pool,
    "Min": _folded(torch.minimum),
    "Mul": _binary(torch.mul),
    "Neg": _unary(torch.neg),
    "PRelu": _prelu,
    "Pad": _pad,
    "Pow": _binary(torch.pow),
    "Reciprocal": _unary(torch.reciprocal),
    "ReduceL2": _reduced(lambda x, axes, keep: torch.linalg.vector_norm(x, 2, axes, keep)),
    "ReduceMax": _reduced(torch.amax),
    "ReduceMean": _reduced(torch.mean),
    "ReduceSum": _reduced(torch.sum),
    "Relu": _unary(torch.relu),
    "Reshape": _reshape,
    "Shape": _shape,
    "Sigmoid": _unary(torch.sigmoid),
    "Slice": _slice,
    "Softmax": _softmax,
    "Softplus": _unary(lambda x: torch.logaddexp(x, torch.zeros_like(x))),
    "Split": _split,
    "Sqrt": _unary(torch.sqrt),
    "Squeeze": _squeeze,
    "Sub": _binary(torch.sub),
    "Tanh": _unary(torch.tanh),
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
}
OPERATIONS: Mapping[str, Operation] = MappingProxyType(_TABLE)
"""ONNX operator to what it computes."""
