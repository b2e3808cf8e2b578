"""FP16 types for the float part of a graph: the networks of TensorRT 11 compute in the types they are given.

Inputs and outputs keep their types. Weights, pairs and everything else of the forward path become FP16, but for what
`kinds` keeps in FP32; casts stand where the two meet, and a pair read by both is dequantised once for each, so that no
cast comes between a DequantizeLinear and the operation that fuses with it. Source of the rules: TensorRT's documents on
strong typing (a DequantizeLinear answers in its scale's type) and ONNX's operator set 19.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from edgekit.engines.half_graph import SOURCE_KEY
from edgekit.errors import BadInputError
from edgekit.half.kinds import Kinds, decide_kinds
from edgekit.half.opset import suited
from edgekit.half.ranges import check_range
from edgekit.half.scales import LARGEST, HalfScales
from edgekit.half.view import GraphView

__all__ = ["HalfTyped", "Measure", "type_half"]

Measure = Callable[[Sequence[str]], Mapping[str, float]]
"""Given names of tensors of the FP32-typed graph, the largest magnitude that each was seen to have."""
_HALF, _SINGLE = int(TensorProto.FLOAT16), int(TensorProto.FLOAT)
_SUFFIX = {_HALF: "half", _SINGLE: "single"}


@dataclass(frozen=True)
class HalfTyped:
    """A graph with FP16 types.

    Attributes:
        model: The `onnx.ModelProto`, with the source's inputs and outputs; of operator set 19 or later where it is
            quantised, else of the source's.
        half: How many operations compute in FP16, by operator.
        single: How many stay in FP32, by reason.
        casts: How many casts stand between the two.
    """

    model: Any
    half: Mapping[str, int]
    single: Mapping[str, int]
    casts: int


def type_half(
    model: Any,
    *,
    source: str = "",
    logits: str = "logits",
    measure: Measure | None = None,
) -> HalfTyped:
    """Give the float part of a graph FP16 types.

    Args:
        model: An `onnx.ModelProto` with FP32 types, Q/DQ or not, of operator set 13 or later. Not modified.
        source: SHA-256 of the file that `model` was read from, to be written down in the result; empty for none.
        logits: The output that the forward path ends in; what it does not depend on is the map branch.
        measure: Asked once for what operations in FP16 would answer; what was seen beyond FP16's range is refused.
            None where there is nothing to measure with: then stored values and scales are checked alone.

    Returns:
        The typed graph. The Q/DQ grids are those of `model` to within the rounding of a scale to FP16 (2^-9 of it at
        most); stored weights become the same integers.

    Raises:
        BadInputError: The graph holds FP16 already or has no output `logits`, its operator set cannot be raised, or
            values are beyond 65504.
    """
    if any(tensor.data_type == _HALF for tensor in model.graph.initializer):
        raise BadInputError(
            "The graph has FP16 types already.", expected="a graph with FP32 types", hint="give the graph it came from"
        )
    view = GraphView(suited(model))
    if logits not in view.outputs:
        raise BadInputError("The graph has no such output.", expected=logits, found=", ".join(view.outputs))
    scales = HalfScales(view)
    kinds = decide_kinds(view, scales, logits)
    if not kinds.half:
        raise BadInputError(
            "Nothing in the graph can have FP16 types.",
            expected="an operation on the way to the logits that FP16 can hold",
            found="; ".join(sorted(set(kinds.single.values()))[:4]),
        )
    check_range(view, scales, kinds, measure)
    writer = _Writer(view, scales, kinds)
    typed = writer.model(source)
    return HalfTyped(
        typed,
        half=dict(sorted(Counter(view.nodes[index].op_type for index in kinds.half).items())),
        single=dict(sorted(Counter(kinds.single.values()).items())),
        casts=writer.casts,
    )


@dataclass
class _Writer:
    """One graph being written."""

    view: GraphView
    scales: HalfScales
    kinds: Kinds
    nodes: list[Any] = field(default_factory=list)
    stored: dict[str, Any] = field(default_factory=dict)
    made: dict[tuple[str, int], str] = field(default_factory=dict)
    casts: int = 0

    def __post_init__(self) -> None:
        graph = self.view.model.graph
        self.taken = {tensor.name for tensor in graph.initializer} | {value.name for value in graph.input}
        self.taken |= {name for node in self.view.nodes for name in (*node.input, *node.output)}
        # What each computed FP32 tensor is now; inputs stay as they are.
        self.now: dict[str, int] = {}
        self.grids = {
            node.input[0]: self.scales.on_grid(node)
            for node in self.view.nodes
            if node.op_type == "QuantizeLinear" and self.view.is_stored(node.input[0])
        }

    def model(self, source: str) -> Any:
        """The typed model."""
        for index, node in enumerate(self.view.nodes):
            if node.op_type == "QuantizeLinear":
                self._quantise(node)
            elif node.op_type == "DequantizeLinear":
                # Written where it is read, in the type it is read in.
                continue
            elif node.op_type != "Constant":
                self._compute(index, node)
        for name in self.view.outputs:
            self._answer(name)
        typed = onnx.ModelProto()
        typed.CopyFrom(self.view.model)
        del typed.graph.value_info[:]
        read = {name for node in self.nodes for name in node.input}
        constants = [node for node in self.view.nodes if node.op_type == "Constant" and node.output[0] in read]
        kept = [item for item in typed.graph.initializer if item.name in read]
        kept += [tensor for name, tensor in self.stored.items() if name in read]
        del typed.graph.initializer[:], typed.graph.node[:]
        typed.graph.initializer.extend(kept)
        typed.graph.node.extend((*constants, *self.nodes))
        if source:
            typed.metadata_props.add(key=SOURCE_KEY, value=source)
        onnx.checker.check_model(typed, full_check=True)
        return typed

    def _compute(self, index: int, node: Any) -> None:
        kind = _HALF if index in self.kinds.half else _SINGLE
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        free = set(self.view.free_slots(node))
        for slot, name in enumerate(node.input):
            if name and self.view.is_float(name):
                copy.input[slot] = self._typed(name, kind if slot in free else _SINGLE, node)
        for item in copy.attribute:
            if kind == _HALF and node.op_type == "Cast" and item.name == "to" and item.i == _SINGLE:
                item.i = _HALF
        for slot, name in enumerate(node.output):
            if not name or not self.view.is_float(name):
                continue
            self.now[name] = kind
            if kind == _HALF and name in self.view.outputs:
                # The output keeps its name and its type.
                copy.output[slot] = self.made[name, _HALF] = self._new(f"{name}/half")
        self.nodes.append(copy)

    def _quantise(self, node: Any) -> None:
        name = node.input[0]
        fits = self.scales.fits(node)
        if self.view.is_stored(name):
            kind = _HALF if fits and self._is_read_in_half(node.output[0]) else _SINGLE
        else:
            kind = self._type_of(name) if fits else _SINGLE
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        copy.input[0] = self._typed(name, kind, node)
        copy.input[1] = self._scale(node.input[1], kind)
        self.nodes.append(copy)

    def _is_read_in_half(self, integers: str) -> bool:
        dequantisers = [self.view.nodes[index] for index in self.view.readers.get(integers, ())]
        return any(
            reader in self.kinds.half
            for node in dequantisers
            for name in node.output
            for reader in self.view.readers.get(name, ())
        )

    def _type_of(self, name: str) -> int:
        """What a tensor is, for a reader that takes either."""
        maker = self.view.maker(name)
        if maker is not None and maker.op_type == "DequantizeLinear":
            return _HALF if self.scales.fits(maker) else _SINGLE
        return self.now.get(name, _SINGLE)

    def _typed(self, name: str, kind: int, reader: Any) -> str:
        """The name of a tensor in a type."""
        if (name, kind) not in self.made:
            self.made[name, kind] = self._make(name, kind, reader)
        return self.made[name, kind]

    def _make(self, name: str, kind: int, reader: Any) -> str:
        if self.view.is_stored(name):
            return self._store(name, self.grids.get(name, self.view.value(name)), kind)
        maker = self.view.maker(name)
        if maker is not None and maker.op_type == "DequantizeLinear":
            return self._dequantise(maker, kind)
        if self.now.get(name, _SINGLE) == kind:
            return name
        origin = reader if maker is None else maker
        return self._cast(self._typed(name, self.now.get(name, _SINGLE), reader), kind, origin)

    def _dequantise(self, node: Any, kind: int) -> str:
        name = node.output[0]
        if kind == _HALF and not self.scales.fits(node):
            return self._cast(self._typed(name, _SINGLE, node), kind, node)
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        other = _HALF + _SINGLE - kind
        if (name, other) in self.made or (kind == _HALF and name in self.view.outputs):
            copy.output[0] = self._new(f"{name}/{_SUFFIX[kind]}")
            copy.name = f"{copy.output[0]}/DequantizeLinear"
        copy.input[1] = self._scale(node.input[1], kind)
        self.nodes.append(copy)
        output: str = copy.output[0]
        return output

    def _scale(self, name: str, kind: int) -> str:
        if (name, kind) not in self.made:
            self.made[name, kind] = self._store(name, self.scales.rounded(name), kind)
        return self.made[name, kind]

    def _store(self, name: str, values: npt.NDArray[Any], kind: int) -> str:
        if kind == _SINGLE and np.array_equal(values, self.view.value(name)):
            return name
        new = self._new(f"{name}/{_SUFFIX[kind]}")
        finite = np.clip(values, -LARGEST, LARGEST) if kind == _HALF else values
        values = np.where(np.isinf(values), values, finite)
        dtype = np.float16 if kind == _HALF else np.float32
        self.stored[new] = numpy_helper.from_array(values.astype(dtype), new)
        return new

    def _cast(self, name: str, kind: int, origin: Any) -> str:
        new = self._new(f"{name}/{_SUFFIX[kind]}")
        node = helper.make_node("Cast", [name], [new], f"{new}/Cast", to=kind)
        node.metadata_props.extend(origin.metadata_props)
        self.nodes.append(node)
        self.casts += 1
        return new

    def _answer(self, name: str) -> None:
        """Let an output that is FP16 by now be FP32 under its own name."""
        maker = self.view.maker(name)
        if maker is not None and maker.op_type == "DequantizeLinear":
            self._typed(name, _SINGLE, maker)
        if self.now.get(name) != _HALF:
            return
        made = self._typed(name, _HALF, None)
        self.nodes.append(helper.make_node("Cast", [made], [name], f"{name}/Cast", to=_SINGLE))
        self.casts += 1

    def _new(self, name: str) -> str:
        while name in self.taken:
            name += "_"
        self.taken.add(name)
        return name
