"""Writing backward nodes: unique names, constants stored once, and the moves that many rules share."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from onnx import helper, numpy_helper

from edgekit.calibrate.gradients.tensors import Dims, TensorFacts
from edgekit.errors import BadInputError

__all__ = ["InputGradients", "Step", "Tape", "unlike_names"]

InputGradients: TypeAlias = Mapping[int, str]
"""Slot of an input to the name of its gradient, which has the input's own shape and type."""


def unlike_names(stem: str, names: Sequence[str]) -> str:
    """`stem`, longer if need be, so that none of `names` begins with it."""
    while any(name.startswith(stem) for name in names):
        stem = f"_{stem}"
    return stem


class Tape:
    """Collects the nodes and constants of a backward pass. Every method but `dims` takes and returns tensor names.

    What is written is valid in operator sets 16 to 19: reductions take their axes as an input, which only ReduceSum
    did from the start; means are therefore sums, divided.
    """

    def __init__(self, facts: TensorFacts) -> None:
        self.facts = facts
        self.nodes: list[Any] = []
        self.constants: dict[str, npt.NDArray[Any]] = {}
        self._prefix = unlike_names("vjp/", tuple(facts.graph.names()))
        self._stored: dict[tuple[Any, ...], str] = {}

    def op(self, op_type: str, *inputs: str, **attributes: Any) -> str:
        """Add a node with one output."""
        return self.ops(op_type, inputs, 1, **attributes)[0]

    def ops(self, op_type: str, inputs: Sequence[str], outputs: int, **attributes: Any) -> tuple[str, ...]:
        """Add a node with several outputs."""
        stem = f"{self._prefix}{op_type}_{len(self.nodes)}"
        names = tuple(f"{stem}_{place}" if place else stem for place in range(outputs))
        self.nodes.append(helper.make_node(op_type, list(inputs), list(names), name=stem, **attributes))
        return names

    def constant(self, value: npt.ArrayLike, dtype: np.dtype[Any] | None = None) -> str:
        """A stored tensor; equal ones share a name."""
        array = np.ascontiguousarray(value, dtype=dtype).reshape(np.shape(value))
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self._stored:
            self._stored[key] = f"{self._prefix}constant_{len(self._stored)}"
            self.constants[self._stored[key]] = array
        return self._stored[key]

    def integers(self, values: Sequence[int]) -> str:
        """A stored int64 vector."""
        return self.constant(np.asarray(values, dtype=np.int64))

    def number(self, value: float, like: str) -> str:
        """A stored scalar of the type of the graph's tensor `like`."""
        return self.constant(np.asarray(value), self.facts.dtype(like))

    def initialisers(self) -> list[Any]:
        """The constants as `onnx.TensorProto`."""
        return [numpy_helper.from_array(array, name) for name, array in self.constants.items()]

    def dims(self, name: str) -> Dims:
        """Sizes of one of the graph's own tensors."""
        return self.facts.dims(name)

    # Moves. `like` names one of the graph's own tensors.

    def reshaped(self, tensor: str, like: str) -> str:
        """`tensor` in the shape of `like`, which has as many elements."""
        dims = self.dims(like)
        if dims.count(None) <= 1 and 0 not in dims:
            return self.op("Reshape", tensor, self.integers([-1 if size is None else size for size in dims]))
        return self.op("Reshape", tensor, self.op("Shape", like))

    def expanded(self, tensor: str, like: str, axes: Sequence[int]) -> str:
        """`tensor`, which has size 1 along `axes` and is as `like` elsewhere, repeated to the shape of `like`."""
        dims = self.dims(like)
        if any(dims[axis] is None for axis in axes):
            return self.op("Expand", tensor, self.op("Shape", like))
        # A one leaves an axis as it is, so the open sizes need not be asked for.
        return self.op("Expand", tensor, self.integers([1 if size is None else size for size in dims]))

    def zeros(self, like: str) -> str:
        """Zeros in the shape and type of `like`."""
        return self.op("Expand", self.number(0.0, like), self.op("Shape", like))

    def summed_to(self, tensor: str, dims: Dims, like: str) -> str:
        """The gradient of broadcasting `like` to sizes `dims`, given the gradient `tensor` of the broadcast tensor.

        An open size is never one that was broadcast: the graph could then be run with one batch size alone.
        """
        own = self.dims(like)
        missing = len(dims) - len(own)
        axes = [axis for axis, size in enumerate(dims) if axis < missing or (own[axis - missing] == 1 and size != 1)]
        if axes:
            tensor = self.op("ReduceSum", tensor, self.integers(axes), keepdims=1)
        return self.reshaped(tensor, like) if missing else tensor

    def mean(self, tensor: str, like: str, axes: Sequence[int]) -> str:
        """Mean over `axes` of a tensor shaped as `like`, the axes kept."""
        total = self.op("ReduceSum", tensor, self.integers(list(axes)), keepdims=1)
        return self.op("Div", total, self.count(like, axes))

    def count(self, like: str, axes: Sequence[int]) -> str:
        """The number of cells of `like` along `axes`, in its type."""
        sizes = [self.dims(like)[axis] for axis in axes]
        known = [size for size in sizes if size is not None]
        if len(known) == len(sizes):
            return self.number(math.prod(known), like)
        chosen = self.op("Gather", self.op("Shape", like), self.integers(list(axes)))
        product = self.op("ReduceProd", chosen, keepdims=0)
        return self.op("Cast", product, to=self.facts.element_type(like))

    def transposed(self, tensor: str, first: int, second: int, rank: int) -> str:
        """Two axes exchanged; of a stored tensor a stored one."""
        order = list(range(rank))
        order[first], order[second] = order[second], order[first]
        value = self.facts.value(tensor)
        return self.op("Transpose", tensor, perm=order) if value is None else self.constant(value.transpose(order))

    def along(self, tensor: str, matrix: npt.NDArray[Any], axis: int, rank: int) -> str:
        """`sum_j matrix[i, j] tensor[..., j, ...]` over one axis of a tensor with `rank` axes."""
        if axis == rank - 1:
            return self.op("MatMul", tensor, self.constant(matrix.T))
        if axis == rank - 2:
            return self.op("MatMul", self.constant(matrix), tensor)
        moved = self.transposed(tensor, axis, rank - 1, rank)
        return self.transposed(self.op("MatMul", moved, self.constant(matrix.T)), axis, rank - 1, rank)

    def padded(self, tensor: str, before: Sequence[int], after: Sequence[int], like: str) -> str:
        """Zeros around, or cells cut off where a number is negative."""
        if not any(before) and not any(after):
            return tensor
        return self.op("Pad", tensor, self.integers([*before, *after]), self.number(0.0, like))


@dataclass(frozen=True)
class Step:
    """One node of the graph that the backward pass goes through.

    Attributes:
        tape: What to write on.
        node: The node.
        gradients: The gradient of each of its outputs, None for those that nothing depends on.
        wanted: Slots of the inputs whose gradients are asked for.
    """

    tape: Tape
    node: Any
    gradients: tuple[str | None, ...]
    wanted: frozenset[int]

    @property
    def gradient(self) -> str:
        """The gradient of the first output, of nodes that have no other."""
        first = self.gradients[0]
        if first is None or any(name is not None for name in self.gradients[1:]):
            raise self.refused("a gradient of its further outputs", "use of its first output alone")
        return first

    @property
    def x(self) -> str:
        """The first input."""
        return str(self.node.input[0])

    @property
    def y(self) -> str:
        """The first output."""
        return str(self.node.output[0])

    def given(self, slot: int) -> str | None:
        """The name of an input, None where it is left out."""
        return (self.node.input[slot] or None) if slot < len(self.node.input) else None

    def attribute(self, name: str, default: Any) -> Any:
        """An attribute's value."""
        for item in self.node.attribute:
            if item.name == name:
                return helper.get_attribute_value(item)
        return default

    def text(self, name: str, default: str) -> str:
        """A text attribute."""
        value = self.attribute(name, default)
        return value.decode() if isinstance(value, bytes) else str(value)

    def numbers(self, slot: int) -> list[int] | None:
        """The integers stored in an input, None where it is left out.

        Raises:
            BadInputError: They are computed.
        """
        name = self.given(slot)
        if name is None:
            return None
        value = self.tape.facts.value(name)
        if value is None:
            raise self.refused(f"computed {name!r}", "sizes, axes and places that are stored")
        return [int(number) for number in value.reshape(-1)]

    def axes(self, slot: int = 1) -> list[int] | None:
        """Axes that are an attribute in older operator sets and an input in newer ones, as they are written."""
        stored = self.attribute("axes", None)
        return list(stored) if stored is not None else self.numbers(slot)

    def refused(self, found: str, expected: str) -> BadInputError:
        """The error for a form of this operator that is not differentiated."""
        return BadInputError(
            f"The operator {self.node.op_type} cannot be differentiated in this form.",
            where=f"node {self.node.name or self.node.output[0]!r}, tensor {self.node.output[0]!r}",
            expected=expected,
            found=found,
            hint='use the method "mse", which needs no gradients',
        )
