"""Rounding an image on the grid that it was captured on, rather than on that of its normalised values.

Images are eight-bit pixels. Normalised, they lie on a grid of their own in each channel, and rounding them on the one
grid that a tensor may have adds an error that the pixels themselves would not: an eight-bit pixel is an eight-bit
integer already. So the graph turns the image back into pixels, rounds those in steps of one, which changes none, and
its first convolutions take the normalisation into their weights.

Borders are padded before, with the zeros of normalised space: a convolution on pixels would pad them with black. The
padding is then the one value that is rounded, to the nearest grey.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

from edgekit.calibrate.adjustments import InputGrid
from edgekit.calibrate.formats import NumberFormat, Range, activation_params
from edgekit.calibrate.graph import IMAGE, PIXELS, ExplainedGraph
from edgekit.calibrate.placement import find_weight
from edgekit.errors import IntegrityError
from edgekit.interface.card import InputSpec

__all__ = ["grid_of", "grid_problem", "grid_range", "image_range", "with_input_grid"]

_WHITE = 255.0
# int8 pixels are counted from the middle grey.
_MIDDLE = 128.0


def grid_of(spec: InputSpec, fmt: NumberFormat) -> InputGrid | None:
    """How the network's input becomes pixels again: 0..255, or -128..127 in a symmetric format.

    Returns:
        None where pixels need no way back, because `image_range` puts the input itself on their grid, and where the
        format has fewer levels than a pixel.
    """
    if fmt.activation_bits < 8 or image_range(spec, fmt) is not None:
        return None
    factor, offset = _pixel_terms(spec)
    shift = _MIDDLE if fmt.symmetric else 0.0
    return InputGrid(_three(factor), _three(offset - shift))


def grid_range(fmt: NumberFormat) -> Range:
    """The range of the tensor of pixels: its scale is exactly 1, and every pixel has an integer."""
    return Range(-float(fmt.qmax), float(fmt.qmax)) if fmt.symmetric else Range(0.0, _WHITE)


def image_range(spec: InputSpec, fmt: NumberFormat) -> Range | None:
    """The range by which the input as it is lies on the grid of the pixels, or None where none does.

    Channels must be normalised alike, and the value that stands for zero must be a pixel: as in networks that take raw
    pixels, or pixels divided by 255.
    """
    factor, offset = _pixel_terms(spec)
    zero = float(offset[0])
    if fmt.activation_bits < 8 or fmt.symmetric or len(set(factor)) > 1 or len(set(offset)) > 1:
        return None
    if not zero.is_integer() or not 0 <= zero <= _WHITE:
        return None
    limits = Range(-zero / factor[0], (_WHITE - zero) / factor[0])
    params = activation_params(limits, fmt)
    exact = params.zero_point - fmt.qmin == int(zero) and abs(params.scale * factor[0] - 1) < 1e-6
    return limits if exact else None


def grid_problem(graph: ExplainedGraph) -> str | None:
    """Why images cannot be rounded on a grid of their own in this graph, or None."""
    convs, problem = _first_convolutions(graph)
    if problem is not None:
        return problem
    if len({_pads(graph, index) for index in convs}) > 1:
        return "convolutions that read the image pad it differently"
    if any(name.startswith(f"{IMAGE}/") for name in graph.names()):
        return f"the graph has tensors called {IMAGE}/..."
    readers = set(convs)
    originals = {graph.nodes[index].input[1] for index in convs}
    values = [graph.constant(name) for name in originals]
    for name in graph.constant_names:
        if not any(edge.node not in readers for edge in graph.readers.get(name, ())):
            continue
        if name in originals or any(_is_copy(graph, name, value) for value in values):
            return "weights of a convolution that reads the image are read elsewhere too"
    return None


def with_input_grid(graph: ExplainedGraph, grid: InputGrid) -> Any:
    """The graph with pixels in `PIXELS` and its first convolutions reading them: it computes the same.

    Args:
        graph: An explained FP32 graph. Not modified.
        grid: How its input becomes pixels.

    Returns:
        An `onnx.ModelProto`.

    Raises:
        IntegrityError: `grid_problem` says why it cannot be done.
    """
    problem = grid_problem(graph)
    if problem is not None:
        raise IntegrityError(
            "A scale table rounds images on a grid of their own, and the graph does not fit.", found=problem
        )
    model = onnx.ModelProto()
    model.CopyFrom(graph.model)
    return _Rewriting(graph, model, grid).model


class _Rewriting:
    """One graph being rewritten."""

    def __init__(self, graph: ExplainedGraph, model: Any, grid: InputGrid) -> None:
        self.graph, self.model = graph, model
        self.factor = np.asarray(grid.factor, dtype=np.float64)
        self.offset = np.asarray(grid.offset, dtype=np.float64)
        convs, _ = _first_convolutions(graph)
        # Where the image's zeros are zeros on the grid too, convolutions go on padding by themselves.
        pads = _pads(graph, convs[0]) if self.offset.any() else ()
        self.weights: dict[str, npt.NDArray[np.float32]] = {}
        self.biases: dict[str, npt.NDArray[np.float32]] = {}
        for index in convs:
            self._convolution(index, unpad=any(pads))
        self._store_weights()
        nodes = [*self._pixels(pads), *model.graph.node]
        del model.graph.node[:]
        model.graph.node.extend(nodes)

    def _pixels(self, pads: tuple[int, ...]) -> list[Any]:
        """Nodes from the image to its pixels."""
        steps: list[tuple[str, str, npt.NDArray[Any]]] = []
        if any(pads):
            half = len(pads) // 2
            steps.append(("Pad", "padding", np.array([0, 0, *pads[:half], 0, 0, *pads[half:]], dtype=np.int64)))
        if (self.factor != 1).any():
            steps.append(("Mul", "factor", _by_channel(self.factor)))
        if self.offset.any():
            steps.append(("Add", "offset", _by_channel(self.offset)))
        nodes, name = [], IMAGE
        for number, (op_type, key, values) in enumerate(steps, 1):
            self.model.graph.initializer.append(numpy_helper.from_array(values, f"{IMAGE}/{key}"))
            output = PIXELS if number == len(steps) else f"{IMAGE}/{op_type.lower()}"
            nodes.append(helper.make_node(op_type, [name, f"{IMAGE}/{key}"], [output], name=f"{PIXELS}/{op_type}"))
            name = output
        return nodes or [helper.make_node("Identity", [IMAGE], [PIXELS], name=f"{PIXELS}/Identity")]

    def _convolution(self, index: int, *, unpad: bool) -> None:
        """Let a convolution read pixels; attributes and metadata but the padding stay."""
        node = self.model.graph.node[index]
        use = find_weight(self.graph, index)
        assert not isinstance(use, str)
        weight = self.graph.constant(use.weight).astype(np.float64)
        outputs, inputs, *kernel = weight.shape
        groups = self.graph.attribute(index, "group", 1)
        channel = (np.arange(outputs)[:, None] // (outputs // groups)) * inputs + np.arange(inputs)
        scaled = weight / self.factor[channel].reshape(outputs, inputs, *(1 for _ in kernel))
        constant = (scaled.reshape(outputs, inputs, -1).sum(axis=2) * self.offset[channel]).sum(axis=1)
        bias = np.zeros(outputs) if use.bias is None else self.graph.constant(use.bias).astype(np.float64)
        self.weights[use.weight] = scaled.astype(np.float32)
        node.input[0] = PIXELS
        if self.offset.any():
            name = f"{use.weight}/bias" if use.bias is None else use.bias
            if use.bias is None or len(self.graph.readers[use.bias]) > 1:
                name = f"{PIXELS}/{index}/bias"
            self.biases[name] = (bias - constant).astype(np.float32)
            del node.input[2:]
            node.input.append(name)
        if unpad:
            for attribute in node.attribute:
                if attribute.name == "pads":
                    attribute.CopyFrom(helper.make_attribute("pads", [0] * len(attribute.ints)))

    def _store_weights(self) -> None:
        values = self.weights | self.biases
        for tensor in self.model.graph.initializer:
            if tensor.name in values:
                tensor.CopyFrom(numpy_helper.from_array(values.pop(tensor.name), tensor.name))
        for node in self.model.graph.node:
            if node.op_type == "Constant" and node.output[0] in values:
                stored = numpy_helper.from_array(values.pop(node.output[0]), node.output[0])
                del node.attribute[:]
                node.attribute.append(helper.make_attribute("value", stored))
        self.model.graph.initializer.extend(numpy_helper.from_array(values[name], name) for name in values)


def _first_convolutions(graph: ExplainedGraph) -> tuple[tuple[int, ...], str | None]:
    """The convolutions that read the image on the way to the logits, and what else stands in the way."""
    forward = set(graph.forward)
    readers = tuple(edge.node for edge in graph.readers.get(IMAGE, ()) if edge.node in forward)
    if not readers or IMAGE in graph.outputs:
        return (), "nothing on the way to the logits reads the image"
    for index in readers:
        node = graph.nodes[index]
        if node.op_type != "Conv":
            return (), f"the image is read by a {node.op_type} too"
        use = find_weight(graph, index)
        if isinstance(use, str):
            return (), f"a convolution reads the image, and {use}"
        if graph.attribute(index, "auto_pad", b"NOTSET") not in (b"NOTSET", b"VALID"):
            return (), "a convolution that reads the image pads by a rule rather than by numbers"
    return readers, None


def _pads(graph: ExplainedGraph, index: int) -> tuple[int, ...]:
    rank = len(graph.constant_shape(graph.nodes[index].input[1])) - 2
    return tuple(graph.attribute(index, "pads", [0] * (2 * rank)))


def _is_copy(graph: ExplainedGraph, name: str, value: npt.NDArray[Any]) -> bool:
    shape = graph.constant_shape(name)
    if sorted(shape) != sorted(value.shape):
        return False
    stored = graph.constant(name)
    return np.array_equal(stored, value) or np.array_equal(stored, value.T)


def _pixel_terms(spec: InputSpec) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Factor and offset of `pixels = input * factor + offset`, float64 [3] each."""
    return spec.divisor * np.asarray(spec.std), spec.divisor * np.asarray(spec.mean)


def _three(values: npt.NDArray[np.float64]) -> tuple[float, float, float]:
    return float(values[0]), float(values[1]), float(values[2])


def _by_channel(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
    return values.astype(np.float32).reshape(1, -1, 1, 1)
