"""The outline of an ONNX file, read without the `onnx` package: devices do not have it.

Only what messages and decisions of the builder need: nodes with names and modules, types of inputs and initialisers,
whether weights lie elsewhere. TensorRT's own parser judges the graph. The format is protocol buffers; field numbers
are those of onnx.proto (IR version 10 and before).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

from edgekit.errors import BadInputError

__all__ = ["OnnxNode", "OnnxOutline", "read_outline"]

# The key that `edgekit.export.origin` writes modules under; the host's package is not imported on a device.
_MODULE_KEY = "edgekit.module"
_FLOAT16 = 10
_EXTERNAL = 1
_DATA_LOCATION = 14
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5

_Field = tuple[int, "int | bytes"]


@dataclass(frozen=True)
class OnnxNode:
    """One operation.

    Attributes:
        index: Its place in the graph, as TensorRT's parser counts.
        name: Its name; may be empty.
        operator: Such as "Conv".
        module: The module of the network it came from; empty where the file does not tell.
        inputs: Names of its inputs.
        outputs: Names of its outputs.
    """

    index: int
    name: str
    operator: str
    module: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]

    def describe(self) -> str:
        """For people: "Conv 'node_3' of module 'layer1.0.conv1'"."""
        text = f"{self.operator} {self.name!r}" if self.name else f"{self.operator}, node {self.index}"
        return f"{text} of module {self.module!r}" if self.module else text


@dataclass(frozen=True)
class OnnxOutline:
    """What a builder wants to know of a graph.

    Attributes:
        opset: Version of the standard operator set.
        nodes: Every operation, in the graph's order.
        inputs: Names of the inputs that are not initialisers.
        outputs: Names of the outputs.
        half_initialisers: How many stored tensors are FLOAT16: above zero, the graph is typed by whoever wrote it.
        external: Weights lie in another file.
        metadata: What the model says of itself, key to value.
    """

    opset: int
    nodes: tuple[OnnxNode, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    half_initialisers: int
    external: bool
    metadata: Mapping[str, str] = field(default_factory=dict)

    @property
    def quantised(self) -> bool:
        """It holds QuantizeLinear or DequantizeLinear."""
        return any(node.operator in ("QuantizeLinear", "DequantizeLinear") for node in self.nodes)

    @property
    def typed(self) -> bool:
        """It holds FLOAT16, so that its types are meant."""
        return self.half_initialisers > 0

    def quantised_nodes(self) -> tuple[OnnxNode, ...]:
        """The operations that are meant to run in INT8: the first two inputs (data and weight) come from DQ."""
        makers = {output: node.operator for node in self.nodes for output in node.outputs}
        return tuple(
            node
            for node in self.nodes
            if node.operator not in ("QuantizeLinear", "DequantizeLinear")
            and len(node.inputs) >= 2
            and all(makers.get(name) == "DequantizeLinear" for name in node.inputs[:2])
        )


def read_outline(data: bytes, where: str) -> OnnxOutline:
    """Read what is needed of a model.

    Raises:
        BadInputError: Not an ONNX model, or cut short.
    """
    try:
        fields = list(_fields(data))
        graphs = [value for number, value in fields if number == 7 and isinstance(value, bytes)]
        if len(graphs) != 1:
            raise ValueError("no graph in it")
        opset = max((_opset(value) for number, value in fields if number == 8 and isinstance(value, bytes)), default=0)
        said = [value for number, value in fields if number == 14 and isinstance(value, bytes)]
        metadata = {_text(value, 1): _text(value, 2) for value in said}
        return replace(_graph(graphs[0], opset), metadata=metadata)
    except (ValueError, UnicodeDecodeError) as cause:
        raise BadInputError(
            "This is not an ONNX graph, or not a whole one.",
            where=where,
            expected="an explained graph, as 'edgekit export' writes it",
            found=str(cause),
            hint="copy or export it again",
        ) from cause


def _graph(data: bytes, opset: int) -> OnnxOutline:
    nodes: list[OnnxNode] = []
    inputs: list[str] = []
    outputs: list[str] = []
    stored = set()
    half, external = 0, False
    for number, value in _fields(data):
        if not isinstance(value, bytes):
            continue
        if number == 1:
            nodes.append(_node(value, len(nodes)))
            # A constant may be a node: its tensor lies in an attribute.
            half += nodes[-1].operator == "Constant" and _constant_is_half(value)
        elif number == 5:
            name, kind, elsewhere = _tensor(value)
            stored.add(name)
            half, external = half + (kind == _FLOAT16), external or elsewhere
        elif number in (11, 12):
            (inputs if number == 11 else outputs).append(_text(value, 1))
    given = tuple(name for name in inputs if name not in stored)
    return OnnxOutline(opset, tuple(nodes), given, tuple(outputs), half, external)


def _node(data: bytes, index: int) -> OnnxNode:
    texts: dict[int, list[str]] = {1: [], 2: [], 3: [], 4: []}
    module = ""
    for number, value in _fields(data):
        if isinstance(value, bytes):
            if number in texts:
                texts[number].append(value.decode("utf-8"))
            elif number == 9 and _text(value, 1) == _MODULE_KEY:
                module = _text(value, 2)
    name, operator = ("".join(texts[key][-1:]) for key in (3, 4))
    return OnnxNode(index, name, operator, module, tuple(texts[1]), tuple(texts[2]))


def _constant_is_half(node: bytes) -> bool:
    attributes = (value for number, value in _fields(node) if number == 5 and isinstance(value, bytes))
    tensors = (
        value for each in attributes for number, value in _fields(each) if number == 5 and isinstance(value, bytes)
    )
    return any(_tensor(tensor)[1] == _FLOAT16 for tensor in tensors)


def _tensor(data: bytes) -> tuple[str, int, bool]:
    name, kind, external = "", 0, False
    for number, value in _fields(data):
        if number == 8 and isinstance(value, bytes):
            name = value.decode("utf-8")
        elif number == 2 and isinstance(value, int):
            kind = value
        elif number == _DATA_LOCATION:
            external = value == _EXTERNAL
    return name, kind, external


def _opset(data: bytes) -> int:
    fields = dict(_fields(data))
    version = fields.get(2, 0)
    return version if isinstance(version, int) and not fields.get(1) else 0


def _text(data: bytes, wanted: int) -> str:
    return next(
        (value.decode("utf-8") for number, value in _fields(data) if number == wanted and isinstance(value, bytes)), ""
    )


def _fields(data: bytes) -> Iterator[_Field]:
    """Field number and value of a message. Raises ValueError where it is not one."""
    place = 0
    while place < len(data):
        key, place = _varint(data, place)
        number, kind = key >> 3, key & 7
        if number == 0:
            raise ValueError("a field without a number")
        if kind == _VARINT:
            value, place = _varint(data, place)
            yield number, value
            continue
        if kind == _BYTES:
            size, place = _varint(data, place)
        elif kind in (_FIXED64, _FIXED32):
            size = 8 if kind == _FIXED64 else 4
        else:
            raise ValueError(f"a field of kind {kind}")
        if size > len(data) - place:
            raise ValueError(f"{size} bytes are announced and {len(data) - place} are left")
        yield number, data[place : place + size]
        place += size


def _varint(data: bytes, place: int) -> tuple[int, int]:
    value = 0
    for step in range(10):
        if place + step >= len(data):
            raise ValueError("it ends within a number")
        byte = data[place + step]
        value |= (byte & 0x7F) << (7 * step)
        if byte < 0x80:
            return value, place + step + 1
    raise ValueError("a number that does not end")
