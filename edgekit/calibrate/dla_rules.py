"""What a DLA would leave to the GPU, or compute in FP16, of a Q/DQ graph; as told beforehand, and by no DLA.

Not a reason to refuse a graph: with fallback it runs. Sources: NVIDIA's Deep-Learning-Accelerator-SW and the headers of
TensorRT 10.3; newer DLA software takes more. Ours was never run on one.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import onnx
from onnx import TensorProto, numpy_helper

from edgekit.calibrate.graph import IMAGE, LOGITS
from edgekit.calibrate.tensorrt_rules import stored_tensors

__all__ = ["check_dla_rules"]

_PAIR = ("QuantizeLinear", "DequantizeLinear")
_ELEMENTWISE = frozenset({"Add", "Max", "Min", "Mul", "Sub"})
_POOLING = frozenset({"AveragePool", "GlobalAveragePool", "GlobalMaxPool", "MaxPool"})
_ACTIVATIONS = frozenset({"Clip", "Relu", "Sigmoid", "Tanh"})
_TAKEN = _ELEMENTWISE | _POOLING | _ACTIVATIONS | {"Concat", "Conv", "ConvTranspose", "Identity"}
# Carry their input's values to their output, so that one scale serves both.
_CARRYING = _POOLING | {"Identity", "Relu", "Clip"}
_LARGEST_BATCH, _LARGEST_SIDE = 4096, 8192


def check_dla_rules(model: Any) -> tuple[str, ...]:
    """What of the forward path a DLA does not run in integers.

    Args:
        model: An explained Q/DQ `onnx.ModelProto` with symmetric int8 pairs.

    Returns:
        A sentence for each operation and reason, and for the shapes of the image; empty where it runs as it stands.
        The map branch is left out: it is computed in float, on the GPU.
    """
    return tuple(_DlaChecker(model).findings())


class _DlaChecker:
    def __init__(self, model: Any) -> None:
        self.nodes = tuple(model.graph.node)
        self.stored = stored_tensors(model)
        self.producer = {name: node for node in self.nodes for name in node.output}
        self.readers: dict[str, list[Any]] = {}
        for node in self.nodes:
            for name in node.input:
                self.readers.setdefault(name, []).append(node)
        self.image = next(value for value in model.graph.input if value.name == IMAGE).type.tensor_type.shape.dim

    def findings(self) -> Iterator[str]:
        yield from self._shapes()
        for node in self._forward():
            if node.op_type in (*_PAIR, "Constant", "Cast"):
                continue
            if node.op_type not in _TAKEN:
                yield f"{node.name}: {node.op_type} goes to the GPU"
                continue
            yield from self._geometry(node)
            yield from self._scales(node)

    def _forward(self) -> list[Any]:
        wanted, found = {LOGITS}, []
        for node in reversed(self.nodes):
            if wanted.intersection(node.output):
                wanted.update(node.input)
                found.append(node)
        return found[::-1]

    def _shapes(self) -> Iterator[str]:
        batch, *sides = (dim.dim_value if dim.HasField("dim_value") else None for dim in self.image)
        if batch is None:
            yield "image: its batch is free, and a DLA runs one batch size"
        elif batch > _LARGEST_BATCH:
            yield f"image: a batch of {batch}, and a DLA takes {_LARGEST_BATCH} at most"
        if any(side is None or side > _LARGEST_SIDE for side in sides):
            yield f"image: sides of {sides}, and a DLA takes {_LARGEST_SIDE} at most"

    def _geometry(self, node: Any) -> Iterator[str]:
        attributes = {item.name: onnx.helper.get_attribute_value(item) for item in node.attribute}
        if node.op_type == "Concat" and attributes.get("axis") != 1:
            yield f"{node.name}: Concat along axis {attributes.get('axis')} goes to the GPU, only channels are joined"
        if len(attributes.get("kernel_shape", (1, 1))) != 2:
            yield f"{node.name}: {node.op_type} in {len(attributes['kernel_shape'])} dimensions goes to the GPU"

    def _scales(self, node: Any) -> Iterator[str]:
        before = {name: self._scale_before(name) for name in node.input if name and not self._is_weight(name)}
        without = [name for name, scale in before.items() if scale is None]
        after = self._scale_after(node.output[0])
        if without or after is None:
            which = ", ".join(map(repr, without)) or repr(node.output[0])
            yield f"{node.name}: {node.op_type} runs in FP16, as {which} has no scale"
            return
        scales = set(before.values())
        if node.op_type in _ELEMENTWISE and len(scales) > 1:
            yield f"{node.name}: {node.op_type} of inputs with two scales"
        if node.op_type in _POOLING and {after} != scales:
            yield f"{node.name}: {node.op_type} between two scales"

    def _is_weight(self, name: str) -> bool:
        if name in self.stored:
            return True
        node = self.producer.get(name)
        return node is not None and node.op_type in (*_PAIR, "Cast") and self._is_weight(node.input[0])

    def _scale_before(self, name: str) -> float | None:
        """The scale that a tensor is read with: of the pair that made it, or of one behind it that all share."""
        node = self.producer.get(name)
        if node is not None and node.op_type == "DequantizeLinear":
            return self._value(node.input[1])
        return self._scale_after(name)

    def _scale_after(self, name: str) -> float | None:
        """The scale that a tensor is rounded with, here or behind operations that carry it."""
        for reader in self.readers.get(name, ()):
            if reader.op_type == "QuantizeLinear":
                return self._value(reader.input[1])
        for reader in self.readers.get(name, ()):
            if reader.op_type in _CARRYING and (found := self._scale_after(reader.output[0])) is not None:
                return found
        return None

    def _value(self, name: str) -> float | None:
        tensor = self.stored.get(name)
        if tensor is None or tensor.data_type not in (TensorProto.FLOAT, TensorProto.FLOAT16):
            return None
        value = numpy_helper.to_array(tensor)
        return float(value.item()) if value.size == 1 else None
