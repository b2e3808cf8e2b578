"""Explained graphs of the shared networks, ready to be trained with quantisation, and what a runtime says of them."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import torch
from explained_graphs import ArrayImages
from exported import OPSET, loaded
from networks import CASES, LAYOUT_CASES
from onnx import numpy_helper

from edgekit.attribution.spec import OWN_CLASS
from edgekit.calibrate.formats import NUMBER_FORMATS
from edgekit.calibrate.graph import ExplainedGraph, parse_graph
from edgekit.calibrate.options import CalibrateOptions
from edgekit.calibrate.scale_table import ScaleTable
from edgekit.calibrate.stage import quantise_graph
from edgekit.errors import BadInputError
from edgekit.export.explained import cleaned_onnx, explained_onnx
from edgekit.qat.interpreter import Interpreter, weight_names
from edgekit.qat.quantiser import Quantiser
from edgekit.teacher.checkpoint import LoadedModel
from edgekit.teacher.options import MapOptions

# One network of tokens, the one whose export takes least.
NETWORKS = {**CASES, "windows": LAYOUT_CASES["windows"]}
Array = npt.NDArray[Any]


@cache
def network(name: str) -> LoadedModel:
    """A network with its card. Shared: copy its model before changing it."""
    case = NETWORKS[name]
    return loaded(case, case.found)  # type: ignore[arg-type]


def images(name: str, count: int = 16) -> torch.Tensor:
    return NETWORKS[name].images(count)


def explained(model: LoadedModel) -> ExplainedGraph:
    raw = explained_onnx(model, MapOptions(), use_closed_form=True, opset=OPSET)
    return parse_graph(cleaned_onnx(raw, lambda _: None)[0].model.SerializeToString(), where="exported")


@cache
def graph_of(name: str) -> ExplainedGraph:
    return explained(network(name))


@cache
def table_of(name: str, number_format: str) -> ScaleTable | None:
    """The calibrated table, or None where this target quantises nothing of the network."""
    try:
        pixels = images(name).numpy()
        options = CalibrateOptions(method="minmax")
        return quantise_graph(graph_of(name), ArrayImages(pixels), NUMBER_FORMATS[number_format], options).table
    except BadInputError as cause:
        assert "Nothing in the graph can be quantised" in str(cause)  # noqa: PT017 - one of two outcomes
        return None


QUANTISED = [
    (name, number_format)
    for number_format in NUMBER_FORMATS
    for name in NETWORKS
    # Of the others TensorRT takes nothing in integers: their channels are too few.
    if number_format != "trt-s8s8" or name in {"mobile", "norms"}
]


def rounded(name: str, number_format: str, *, learned: bool = True) -> Interpreter:
    table = table_of(name, number_format)
    assert table is not None
    graph = graph_of(name)
    return Interpreter(graph, weight_names(graph), Quantiser(graph, table, learned=learned))


def with_weights(graph: ExplainedGraph, network: Interpreter) -> ExplainedGraph:
    """The graph with the network's weights in place of its own."""
    model = onnx.ModelProto()
    model.CopyFrom(graph.model)
    for item in model.graph.initializer:
        if item.name in network.trainable:
            item.CopyFrom(numpy_helper.from_array(network.trainable[item.name].detach().numpy(), item.name))
    return parse_graph(model.SerializeToString(), where="trained")


def for_graph(table: ScaleTable, graph: ExplainedGraph) -> ScaleTable:
    return replace(table, provenance=replace(table.provenance, graph=graph.digest))


def run(model: onnx.ModelProto, pixels: Array, names: list[str], *, optimised: bool) -> list[Array]:
    """What ONNX Runtime says of the tensors `names`, which become outputs where they are none."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    present = {value.name for value in copy.graph.output}
    for name in names:
        if name not in present:
            copy.graph.output.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None))
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    levels = onnxruntime.GraphOptimizationLevel
    options.graph_optimization_level = levels.ORT_ENABLE_ALL if optimised else levels.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(copy.SerializeToString(), options, providers=["CPUExecutionProvider"])
    own = np.full(len(pixels), OWN_CLASS, dtype=np.int32)
    found: list[Array] = session.run(names, {"image": pixels, "class_index": own})
    return found
