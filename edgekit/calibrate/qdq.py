"""Writing the quantised graph: explicit QuantizeLinear and DequantizeLinear from the FP32 graph and a scale table.

Nothing else goes in, and names and order follow from the graph alone, so equal inputs give equal bytes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

from edgekit.calibrate.adjusted import apply_adjustments
from edgekit.calibrate.adjustments import offsets_of
from edgekit.calibrate.formats import NumberFormat, number_format
from edgekit.calibrate.graph import IMAGE, Edge, ExplainedGraph
from edgekit.calibrate.placement import Placement, WeightUse, place
from edgekit.calibrate.relatives import WeightRelatives
from edgekit.calibrate.scale_table import ActivationScale, ScaleTable, WeightScale
from edgekit.errors import BadInputError, IntegrityError

__all__ = ["quantised_weight", "serialise", "write_qdq"]


def write_qdq(graph: ExplainedGraph, table: ScaleTable) -> Any:
    """Quantise `graph` as `table` says.

    The forward path computes in the table's number format as far as the runtime's kernels allow. The map branch stays
    in float and reads what the forward path computes: dequantised activations, and weights and their copies as they
    were rounded. What is a weight's relative and no copy stays as it is: see `relatives`.

    Args:
        graph: The FP32 graph.
        table: The scale table made for this graph.

    Returns:
        An `onnx.ModelProto` with the graph's opset, inputs and outputs.

    Raises:
        IntegrityError: The table belongs to another graph, or its entries do not fit.
    """
    if table.provenance.graph != graph.digest:
        raise IntegrityError(
            "The scale table was made for another graph.",
            expected=f"a graph with SHA-256 {table.provenance.graph}",
            found=graph.digest,
        )
    fmt = number_format(table.number_format)
    graph = apply_adjustments(graph, table.adjustments)
    placement = place(graph, fmt, table.provenance.exclude)
    _check_entries(placement, table)
    return _Writer(graph, placement, table, fmt).model()


def serialise(model: Any) -> bytes:
    """The model's bytes, equal for equal models."""
    data: bytes = model.SerializeToString(deterministic=True)
    return data


def quantised_weight(
    weight: npt.NDArray[np.float32],
    entry: WeightScale,
    fmt: NumberFormat,
    offsets: npt.NDArray[np.int8] | None = None,
) -> npt.NDArray[np.int8]:
    """A weight as int8 in -limit..limit, rounded half to even and moved by `offsets`, int8 of its shape."""
    steps = np.rint(weight / _along(entry, weight.ndim))
    if offsets is not None:
        steps = steps + offsets
    clipped: npt.NDArray[np.int8] = np.clip(steps, -fmt.weight_limit, fmt.weight_limit).astype(np.int8)
    return clipped


def _along(entry: WeightScale, rank: int) -> npt.NDArray[np.float32]:
    shape = [1] * rank
    shape[entry.axis] = -1
    return np.asarray(entry.scales, dtype=np.float32).reshape(shape)


def _check_entries(placement: Placement, table: ScaleTable) -> None:
    for what, wanted, present in (
        ("activations", set(placement.activations), set(table.activations)),
        ("weights", {use.weight for use in placement.weights}, set(table.weights)),
    ):
        if wanted != present:
            raise IntegrityError(
                f"The scale table's {what} are not those that are quantised in the graph.",
                expected=", ".join(sorted(wanted - present)[:4]) or "nothing more",
                found=", ".join(sorted(present - wanted)[:4]) or "nothing more",
            )
    for name, source in placement.range_of.items():
        if table.activations[name].params != table.activations[source].params:
            raise IntegrityError(
                "Two tensors that hold the same integers have different scales in the table.",
                where=f"{name} and {source}",
            )


class _Writer:
    """One graph being written."""

    def __init__(self, graph: ExplainedGraph, placement: Placement, table: ScaleTable, fmt: NumberFormat) -> None:
        self.graph, self.placement, self.table, self.fmt = graph, placement, table, fmt
        self.taken = set(graph.names())
        self.stored: list[Any] = []
        self.renamed: dict[Edge, str] = {}
        self.nodes: list[Any] = []
        self.forward = frozenset(graph.forward)

    def model(self) -> Any:
        """The quantised model."""
        self.nodes += [node for node in self.graph.nodes if node.op_type == "Constant"]
        for name in dict.fromkeys(use.weight for use in self.placement.weights):
            self._weight(name)
        for use in self.placement.weights:
            if use.bias is not None and self.fmt.integer_bias:
                self._bias(use)
        self._map_copies()
        for name in self.placement.activations:
            self._redirect(name)
        if IMAGE in self.table.activations:
            self._pair(IMAGE)
        for index, node in enumerate(self.graph.nodes):
            if node.op_type == "Constant":
                continue
            copy = onnx.NodeProto()
            copy.CopyFrom(node)
            for slot in range(len(copy.input)):
                copy.input[slot] = self.renamed.get(Edge(index, slot), copy.input[slot])
            self.nodes.append(copy)
            for name in node.output:
                if name in self.table.activations:
                    self._pair(name)
        return self._assembled()

    def _assembled(self) -> Any:
        model = onnx.ModelProto()
        model.CopyFrom(self.graph.model)
        del model.graph.node[:]
        read = {name for node in self.nodes for name in node.input} | self.graph.outputs
        model.graph.node.extend(node for node in self.nodes if not read.isdisjoint(node.output))
        kept = [item for item in self.graph.model.graph.initializer if item.name in read]
        del model.graph.initializer[:]
        model.graph.initializer.extend((*kept, *self.stored))
        onnx.checker.check_model(model)
        return model

    def _name(self, base: str, suffix: str) -> str:
        name = f"{base}/{suffix}"
        if name in self.taken:
            raise BadInputError("A tensor of the graph has a name that quantisation needs.", where=name)
        self.taken.add(name)
        return name

    def _store(self, name: str, values: npt.NDArray[Any]) -> str:
        self.stored.append(numpy_helper.from_array(values, name))
        return name

    def _node(self, op_type: str, inputs: list[str], output: str, **attributes: int) -> None:
        self.nodes.append(helper.make_node(op_type, inputs, [output], name=f"{output}/{op_type}", **attributes))

    def _redirect(self, name: str) -> None:
        output = self._name(name, "dequantised")
        self.renamed.update(dict.fromkeys(self.placement.dequantised_reads[name], output))

    def _pair(self, name: str) -> None:
        entry = self.table.activations[name]
        scale = self._store(self._name(name, "scale"), np.asarray(entry.scale, dtype=np.float32))
        zero = self._store(self._name(name, "zero_point"), np.asarray(entry.zero_point, dtype=self.fmt.dtype))
        integers = self._name(name, "quantised")
        read = name if self.fmt.activation_bits == 8 else self._clipped(name, entry)
        self._node("QuantizeLinear", [read, scale, zero], integers)
        self._node("DequantizeLinear", [integers, scale, zero], f"{name}/dequantised")

    def _clipped(self, name: str, entry: ActivationScale) -> str:
        """The tensor within the ends of a grid of fewer than eight bits, which QuantizeLinear does not know."""
        ends = (self.fmt.qmin - entry.zero_point, self.fmt.qmax - entry.zero_point)
        low, high = (np.float32(end) * np.float32(entry.scale) for end in ends)
        bounds = [
            self._store(self._name(name, key), np.asarray(value, dtype=np.float32))
            for key, value in (("low", low), ("high", high))
        ]
        output = self._name(name, "clipped")
        self._node("Clip", [name, *bounds], output)
        return output

    def _weight(self, name: str) -> None:
        """A weight's pair, first of all nodes because it depends on none."""
        entry = self.table.weights[name]
        weight = self.graph.constant(name)
        if not 0 <= entry.axis < weight.ndim or len(entry.scales) != weight.shape[entry.axis]:
            raise IntegrityError(
                "The scale table does not fit a weight.",
                where=name,
                expected=f"{list(weight.shape)}",
                found=f"{len(entry.scales)} scales along axis {entry.axis}",
            )
        scale = self._store(self._name(name, "scale"), np.asarray(entry.scales, dtype=np.float32))
        zero = self._store(self._name(name, "zero_point"), np.zeros(len(entry.scales), dtype=np.int8))
        integers, output = self._name(name, "quantised"), self._name(name, "dequantised")
        values = self._integers(name)
        if self.fmt.stored_weights:
            self._store(integers, values)
        else:
            # Rounded beforehand, which changes no integer and lets the map branch read the very same tensor.
            floats = self._store(self._name(name, "rounded"), values.astype(np.float32) * _along(entry, weight.ndim))
            self._node("QuantizeLinear", [floats, scale, zero], integers, axis=entry.axis)
        self._node("DequantizeLinear", [integers, scale, zero], output, axis=entry.axis)
        users = {use.node for use in self.placement.weights if use.weight == name}
        self.renamed.update({edge: output for edge in self.graph.readers[name] if edge.node in users})

    def _integers(self, name: str) -> npt.NDArray[np.int8]:
        weight = self.graph.constant(name)
        try:
            offsets = offsets_of(self.table.adjustments, name, weight.shape)
        except ValueError as cause:
            raise IntegrityError(
                "The scale table's rounding does not fit a weight.", where=name, expected=f"{list(weight.shape)}"
            ) from cause
        return quantised_weight(weight, self.table.weights[name], self.fmt, offsets)

    def _bias(self, use: WeightUse) -> None:
        """Each operation gets its own int32 bias: its scale depends on the operation's input."""
        assert use.bias is not None
        scale = np.asarray(self.table.weights[use.weight].scales, dtype=np.float32)
        scale = scale * np.float32(self.table.activations[use.data].scale)
        steps = np.rint(self.graph.constant(use.bias).astype(np.float64) / scale.astype(np.float64))
        if not (np.abs(steps) <= np.iinfo(np.int32).max).all():
            raise IntegrityError("A bias does not fit into int32 with the table's scales.", where=use.bias)
        base = f"{self.graph.nodes[use.node].output[0]}/bias"
        names = [
            self._store(self._name(base, "quantised"), steps.astype(np.int32)),
            self._store(self._name(base, "scale"), scale),
        ]
        output = self._name(base, "dequantised")
        self._node("DequantizeLinear", names, output, axis=0)
        self.renamed[Edge(use.node, 2)] = output

    def _map_copies(self) -> None:
        """Let the map branch read rounded weights, where it reads a quantised weight or a copy of one."""
        relatives = WeightRelatives(self.graph)
        copies: dict[str, tuple[str, bool]] = {name: (name, False) for name in self.table.weights}
        for weight in self.table.weights:
            for copy in relatives.copies(weight):
                copies.setdefault(copy.name, (weight, copy.transposed))
        for name in (name for name in self.graph.constant_names if name in copies):
            edges = [edge for edge in self.graph.readers.get(name, ()) if edge.node not in self.forward]
            if edges:
                weight, transposed = copies[name]
                self.renamed.update(dict.fromkeys(edges, self._rounded(weight, name, transposed=transposed)))

    def _rounded(self, weight: str, copy: str, *, transposed: bool) -> str:
        """Rounded weights in float for the map branch.

        Where the weight is stored as integers they are a plain product of integers and scales, which ONNX Runtime
        computes once, while loading. A DequantizeLinear it keeps for the integer kernels and runs each time, which
        takes longer than the transposed convolution that reads it (12 ms against 6 ms for 512 x 512 x 3 x 3 on one
        x86 core).
        """
        entry, original = self.table.weights[weight], self.graph.constant(weight)
        steps = _along(entry, original.ndim)
        if not self.fmt.stored_weights:
            if copy == weight:
                return f"{weight}/rounded"
            values = self._integers(weight).astype(np.float32) * steps
            return self._store(self._name(copy, "rounded"), np.ascontiguousarray(values.T if transposed else values))
        output = self._name(copy, "rounded")
        integers, scale = self._name(copy, "steps"), self._store(self._name(copy, "step_size"), steps)
        self._node("Cast", [f"{weight}/quantised"], integers, to=onnx.TensorProto.FLOAT)
        if not transposed:
            self._node("Mul", [integers, scale], output)
            return output
        product = self._name(copy, "product")
        self._node("Mul", [integers, scale], product)
        self._node("Transpose", [product], output)
        return output
