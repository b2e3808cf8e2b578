"""From an ONNX file to TensorRT's network definition, with the parser's complaints in our words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from edgekit.engines.tensorrt.binding import TensorRt
from edgekit.engines.tensorrt.messages import Messages
from edgekit.engines.tensorrt.onnx_outline import OnnxOutline
from edgekit.engines.tensorrt.precision import Precision
from edgekit.engines.tensorrt.signature import CLASS_INDEX, IMAGE, TensorFacts, signature_problem, type_name
from edgekit.errors import BadInputError

__all__ = ["GraphSource", "NetworkShapes", "create_network", "network_shapes", "parse_graph"]

_SHOWN_ERRORS = 3


@dataclass(frozen=True)
class GraphSource:
    """The file that is built.

    Attributes:
        where: Its path, for messages.
        data: Its bytes.
        outline: What is in it.
        stands_for: SHA-256 of the graph with FP32 types that was named, where this one was made from it; else empty.
    """

    where: str
    data: bytes
    outline: OnnxOutline
    stands_for: str = ""


@dataclass(frozen=True)
class NetworkShapes:
    """Shapes of the inputs; -1 where the batch is free.

    Attributes:
        image: [N, 3, H, W].
        class_index: [N] or [N, k].
    """

    image: tuple[int, ...]
    class_index: tuple[int, ...]

    @property
    def free_batch(self) -> bool:
        """The graph takes any number of images."""
        return self.image[0] < 0


def create_network(tensorrt: TensorRt, builder: Any, precision: Precision) -> Any:
    """An empty network of the kind that version and precision want.

    Masks are made of the members themselves: `STRONGLY_TYPED` is not the same bit in every version, `EXPLICIT_BATCH`
    is needed in 8.x, ignored in 10.x and gone in 11.x.
    """
    kinds = tensorrt.module.NetworkDefinitionCreationFlag
    flags = 0
    if tensorrt.version < (10, 0, 0):
        flags |= 1 << int(kinds.EXPLICIT_BATCH)
    if precision.strong and not tensorrt.always_strong:
        flags |= 1 << int(kinds.STRONGLY_TYPED)
    return builder.create_network(flags)


def parse_graph(tensorrt: TensorRt, parser: Any, messages: Messages, source: GraphSource) -> None:
    """Let a parser fill its network. It owns the weights and has to live until the build is done.

    Raises:
        BadInputError: The parser refuses the graph; the message names the node and the module it came from.
    """
    if parser.parse(source.data):
        return
    errors = [parser.get_error(index) for index in range(parser.num_errors)]
    found = "; ".join(_describe(error, source.outline) for error in errors[:_SHOWN_ERRORS])
    more = len(errors) - _SHOWN_ERRORS
    raise BadInputError(
        "TensorRT's parser cannot read this graph.",
        where=source.where,
        expected=f"operators that TensorRT {tensorrt.text} reads, at an operator set it knows "
        f"(the graph's is {source.outline.opset})",
        found=(found + (f"; and {more} more" if more > 0 else "")) or messages.summary("no reason was given"),
        hint="'edgekit export --target' for this device writes operators that its TensorRT reads; another method or a "
        "tap after the named module avoids the operator",
    )


def network_shapes(network: Any, where: str) -> NetworkShapes:
    """Shapes of the inputs, after a check that this is an explained graph.

    Raises:
        BadInputError: It is not.
    """
    inputs = _facts([network.get_input(index) for index in range(network.num_inputs)])
    outputs = _facts([network.get_output(index) for index in range(network.num_outputs)])
    problem = signature_problem(inputs, outputs)
    if problem:
        raise BadInputError(
            "The ONNX graph is not an explained graph.",
            where=where,
            expected="inputs image FLOAT [N, 3, H, W] and class_index INT32; outputs logits, attribution, ... FLOAT",
            found=problem,
            hint="make it with 'edgekit export' or 'edgekit build'",
        )
    image, classes = inputs[IMAGE][1], inputs[CLASS_INDEX][1]
    if any(side < 0 for side in image[1:]) or any(side < 0 for side in classes[1:]):
        raise BadInputError(
            "Only the batch of a graph may be free.",
            where=where,
            expected="image [N, 3, H, W] with fixed H and W",
            found=f"image {list(image)}, class_index {list(classes)}",
            hint="export the graph again with the size of its images",
        )
    return NetworkShapes(image, classes)


def _facts(tensors: list[Any]) -> dict[str, TensorFacts]:
    return {each.name: (type_name(each.dtype), tuple(int(side) for side in each.shape)) for each in tensors}


def _describe(error: Any, outline: OnnxOutline) -> str:
    """One complaint: the index of the node is given by every version, its name by later ones only."""
    index = int(error.node())
    text = str(error.desc()).strip()
    if 0 <= index < len(outline.nodes):
        return f"{outline.nodes[index].describe()}: {text}"
    name = str(error.node_name()) if hasattr(error, "node_name") else ""
    return f"{name!r}: {text}" if name else text
