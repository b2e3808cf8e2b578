"""Where a Q/DQ graph goes from float to integers and back, which is what a runtime pays reformats and copies for.

A convolution with float before and after it is usually slower in integers than in float. Source of the rule: the code
of NVIDIA's Model-Optimizer and its users' reports; no number here was measured on TensorRT.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from onnx import numpy_helper

from edgekit.calibrate.graph import LOGITS
from edgekit.calibrate.placement import ACTIVATION_OPS, DATA_MOVERS
from edgekit.core.canonical import JsonValue

__all__ = ["Boundaries", "count_boundaries"]

_PAIR = ("QuantizeLinear", "DequantizeLinear")
_WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")
# What runtimes fold into the integer operation before it, or run on integers.
_JOINING = (
    ACTIVATION_OPS
    | DATA_MOVERS
    | {"Add", "AveragePool", "Concat", "Div", "HardSigmoid", "HardSwish", "LeakyRelu", "Mul", "PRelu", "Sigmoid"}
)
_NAMED = 10


@dataclass(frozen=True)
class Boundaries:
    """Steps between float and integers on the way to the logits.

    Attributes:
        quantised: Operations with weights that compute in integers.
        entries: Tensors that are rounded and come out of no integer operation.
        exits: Integer operations whose result some operation reads in float.
        lone: Names of operations in integers with float on both sides.
        requantised: Names of concatenations that join integers of several scales, each of which is rounded once more.
    """

    quantised: int
    entries: int
    exits: int
    lone: tuple[str, ...]
    requantised: tuple[str, ...]

    @property
    def per_operation(self) -> float:
        """Entries and exits for each operation in integers; 0 where there is none."""
        return (self.entries + self.exits) / self.quantised if self.quantised else 0.0

    def to_dict(self) -> dict[str, JsonValue]:
        """JSON-ready form; of long lists the first ten names, with their whole length."""
        raw: dict[str, JsonValue] = {
            "quantised": self.quantised,
            "entries": self.entries,
            "exits": self.exits,
            "per_operation": round(self.per_operation, 4),
        }
        for key, names in (("lone", self.lone), ("requantised", self.requantised)):
            raw[key] = {"count": len(names), "names": list(names[:_NAMED])}
        return raw


def count_boundaries(model: Any) -> Boundaries:
    """Count in an explained Q/DQ `onnx.ModelProto`; the map branch does not count, it is float on purpose."""
    return _Counting(model).result()


class _Counting:
    def __init__(self, model: Any) -> None:
        self.nodes = tuple(model.graph.node)
        self.stored = {tensor.name: tensor for tensor in model.graph.initializer}
        constants = {node.output[0] for node in self.nodes if node.op_type == "Constant"}
        self.producer = {
            name: index for index, node in enumerate(self.nodes) for name in node.output if name not in constants
        }
        self.readers: dict[str, list[int]] = {}
        for index, node in enumerate(self.nodes):
            for name in node.input:
                self.readers.setdefault(name, []).append(index)
        self.forward = self._forward()
        self.integer = [index for index in sorted(self.forward) if self._is_integer(index)]
        self.activations = [index for index in sorted(self.forward) if self._rounds_an_activation(index)]
        self.inner = {index for index in self.activations if self._sources(index) & set(self.integer)}

    def _forward(self) -> set[int]:
        found: set[int] = set()
        pending = [LOGITS]
        while pending:
            index = self.producer.get(pending.pop())
            if index is not None and index not in found:
                found.add(index)
                pending.extend(self.nodes[index].input)
        return found

    def _maker(self, name: str) -> Any | None:
        index = self.producer.get(name)
        return None if index is None else self.nodes[index]

    def _is_integer(self, index: int) -> bool:
        node = self.nodes[index]
        makers = [self._maker(name) for name in node.input[:2]]
        return node.op_type in _WEIGHTED and all(
            maker is not None and maker.op_type == "DequantizeLinear" for maker in makers
        )

    def _rounds_an_activation(self, index: int) -> bool:
        node = self.nodes[index]
        return node.op_type == "QuantizeLinear" and node.input[0] not in self.stored

    def _sources(self, quantiser: int) -> set[int]:
        """The operations whose results a rounded tensor is made of, looking through what joins them."""
        found: set[int] = set()
        pending = [self.nodes[quantiser].input[0]]
        while pending:
            name = pending.pop()
            index = self.producer.get(name)
            if index is None:
                continue
            node = self.nodes[index]
            if node.op_type in (*_JOINING, "Cast"):
                pending.extend(node.input)
            elif node.op_type == "DequantizeLinear":
                # Integers that were only moved, or added: they come from wherever they were rounded.
                before = self.producer.get(node.input[0])
                if before is not None and self._rounds_an_activation(before):
                    pending.append(self.nodes[before].input[0])
            else:
                found.add(index)
        return found

    def _endings(self, index: int) -> set[str]:
        """How the result of an operation is read on the way to the logits: as "integers", in "float", or both."""
        found: set[str] = set()
        pending = list(self.nodes[index].output)
        seen: set[str] = set()
        while pending:
            name = pending.pop()
            if name in seen:
                continue
            seen.add(name)
            readers = [reader for reader in self.readers.get(name, ()) if reader in self.forward]
            if not readers:
                found.add("float")
            for reader in readers:
                node = self.nodes[reader]
                if node.op_type == "QuantizeLinear":
                    found.add("integers")
                    found |= self._float_readers_of_pair(node)
                elif node.op_type in (*_JOINING, "Cast"):
                    pending.extend(node.output)
                else:
                    found.add("float")
        return found

    def _float_readers_of_pair(self, quantiser: Any) -> set[str]:
        """{"float"} where an operation reads a pair's result and computes in float with it."""
        for after in self.readers.get(quantiser.output[0], ()):
            for reader in self.readers.get(self.nodes[after].output[0], ()):
                node = self.nodes[reader]
                if reader in self.forward and node.op_type not in (*_JOINING, *_PAIR) and reader not in self.integer:
                    return {"float"}
        return set()

    def result(self) -> Boundaries:
        endings = {index: self._endings(index) for index in self.integer}
        lone = [
            self.nodes[index].name or self.nodes[index].output[0]
            for index in self.integer
            if endings[index] == {"float"} and self._pair_before(index) not in self.inner
        ]
        return Boundaries(
            quantised=len(self.integer),
            entries=len(self.activations) - len(self.inner),
            exits=sum("float" in ending for ending in endings.values()),
            lone=tuple(lone),
            requantised=tuple(self._requantised()),
        )

    def _pair_before(self, index: int) -> int | None:
        after = self._maker(self.nodes[index].input[0])
        return None if after is None else self.producer.get(after.input[0])

    def _requantised(self) -> list[str]:
        found = []
        for index in sorted(self.forward):
            node = self.nodes[index]
            if node.op_type != "Concat":
                continue
            scales = [self._scale(maker) for name in node.input if (maker := self._maker(name)) is not None]
            after = [self.nodes[reader] for reader in self.readers.get(node.output[0], ())]
            scales += [self._scale(reader) for reader in after if reader.op_type == "QuantizeLinear"]
            if len({scale for scale in scales if scale is not None}) > 1:
                found.append(node.name or node.output[0])
        return found

    def _scale(self, node: Any) -> float | None:
        if node.op_type not in _PAIR or node.input[1] not in self.stored:
            return None
        return float(np.max(numpy_helper.to_array(self.stored[node.input[1]])))
