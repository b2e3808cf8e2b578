"""What the ONNX parser refuses, as far as the sources say so: operators, and the form of quantisation nodes.

Operators come from the tables of onnx-tensorrt that the exporter uses too; the rules of quantisation are written again
here, so that the exporter's checker has something to disagree with.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper

__all__ = ["Refusal", "newest_opset", "refusals"]

TABLES = Path(__file__).resolve().parents[2] / "edgekit" / "export" / "operators"
# Which table stands for which version: the newest that is not newer.
TABLE_VERSIONS = ((8, 5), (8, 6), (10, 0), (10, 3), (10, 6), (10, 13), (10, 15))


@dataclass(frozen=True)
class Refusal:
    """Why a node is refused: its position, a member of `ErrorCode`, the parser's function, and words."""

    node: int
    code: str
    function: str
    message: str


@cache
def _table(number: tuple[int, int]) -> dict[str, Any]:
    major, minor = max(version for version in TABLE_VERSIONS if version <= number)
    found: dict[str, Any] = json.loads((TABLES / f"tensorrt-{major}.{minor}.json").read_text(encoding="utf-8"))
    return found


def newest_opset(number: tuple[int, int]) -> int:
    """The newest operator set that a version is documented for."""
    return int(_table(number)["opset"][1])


def refusals(model: onnx.ModelProto, number: tuple[int, int]) -> Iterator[Refusal]:
    """Everything that a version's parser refuses in a graph, in the order of nodes."""
    constants = {each.name: numpy_helper.to_array(each) for each in model.graph.initializer}
    producers = {output: node for node in model.graph.node for output in node.output}
    for node in model.graph.node:
        if node.op_type == "Constant" and node.attribute and node.attribute[0].name == "value":
            constants[node.output[0]] = numpy_helper.to_array(node.attribute[0].t)
    operators = _table(number)["operators"]
    for index, node in enumerate(model.graph.node):
        if node.domain not in ("", "ai.onnx") or not operators.get(node.op_type, {}).get("supported", False):
            yield Refusal(
                index,
                "UNSUPPORTED_NODE",
                "importFallbackPluginImporter",
                'Assertion failed: creator && "Plugin not found, are the plugin name, version, and namespace correct?"',
            )
        elif node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            for message in _quantisation(node, constants, producers, number):
                yield Refusal(index, "INVALID_NODE", "QuantDequantLinearHelper", f"Assertion failed: {message}")


def _folded(
    name: str, constants: dict[str, npt.NDArray[Any]], producers: dict[str, onnx.NodeProto]
) -> npt.NDArray[Any] | None:
    if name in constants:
        return constants[name]
    node = producers.get(name)
    if node is not None and node.op_type == "Cast":
        return constants.get(node.input[0])
    return None


def _quantisation(
    node: onnx.NodeProto,
    constants: dict[str, npt.NDArray[Any]],
    producers: dict[str, onnx.NodeProto],
    number: tuple[int, int],
) -> Iterator[str]:
    scale = _folded(node.input[1], constants, producers)
    if scale is None:
        yield "the scale must be an initializer"
        return
    if not np.all(scale > 0):
        yield "scale coefficients must be all positive"
    dequantises = node.op_type == "DequantizeLinear"
    named = len(node.input) > 2 and bool(node.input[2])
    zero_point = _folded(node.input[2], constants, producers) if named else None
    if named and zero_point is None:
        yield "the zero point must be an initializer"
    elif zero_point is not None and (np.any(zero_point != 0) or zero_point.dtype != np.int8):
        yield "TensorRT only supports symmetric quantization: the zero point must be zeros of type INT8"
    elif zero_point is None and not dequantises:
        yield "without a zero point the output is UINT8, and only INT8 is supported"
    source = constants.get(node.input[0])
    if dequantises and source is not None:
        if source.dtype != np.int8:
            yield f"the input of DequantizeLinear must be INT8, not {source.dtype}"
        elif number[0] < 10:
            yield "the input of DequantizeLinear must come from QuantizeLinear, not from an INT8 initializer"
    if scale.size > 1:
        yield from _per_axis(node, scale, source, constants, producers)


def _per_axis(
    node: onnx.NodeProto,
    scale: npt.NDArray[Any],
    source: npt.NDArray[Any] | None,
    constants: dict[str, npt.NDArray[Any]],
    producers: dict[str, onnx.NodeProto],
) -> Iterator[str]:
    producer = producers.get(node.input[0])
    if source is None and producer is not None and producer.op_type == "QuantizeLinear":
        source = constants.get(producer.input[0])
    axis = next((each.i for each in node.attribute if each.name == "axis"), 1)
    if source is None:
        yield "scales of several elements need a constant input (weights)"
    elif not -source.ndim <= axis < source.ndim or source.shape[axis] != scale.size:
        yield f"{scale.size} scales do not fit axis {axis} of {source.shape}"
