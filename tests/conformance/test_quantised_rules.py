"""Every Q/DQ graph that we write for TensorRT, by target: its rules, its operator table, and the same with FP16 types.

Over hand-made graphs and exported networks. What an operator table lacks is known of a version, and counted here; TensorRT
itself takes no part.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import onnx
import pytest
from explained_graphs import GRAPHS, ArrayImages, random_images
from exported import exported
from networks import CASES

from edgekit.calibrate.boundaries import count_boundaries
from edgekit.calibrate.formats import NUMBER_FORMATS, number_format
from edgekit.calibrate.graph import parse_graph
from edgekit.calibrate.options import CalibrateOptions
from edgekit.calibrate.placement import place
from edgekit.calibrate.stage import quantise_graph
from edgekit.calibrate.tensorrt_rules import check_tensorrt_rules
from edgekit.errors import BadInputError
from edgekit.export.operator_check import check_operators
from edgekit.export.operator_table import load_table, table_names
from edgekit.export.opset import downgraded
from edgekit.half.opset import raised
from edgekit.half.typed import type_half
from edgekit.targets.loader import resolve_target, target_names

TARGETS = [resolve_target(name) for name in target_names()]
WANTED = sorted(
    {
        (target.number_format, target.opset, target.operators)
        for target in TARGETS
        if target.operators is not None and NUMBER_FORMATS[target.number_format].placement == "tensorrt"
    }
)
# The oldest table whose engine has strongly typed networks that take FP16 scales.
TYPED_TABLES = [name for name in table_names() if name.startswith("tensorrt-10.1")]


# Exported networks: residual with a traced gradient, norms, a convolutional head. Each takes seconds.
EXPORTED = [("residual", "layer1"), ("norms", "features"), ("vgg", "features.1")]


@cache
def float_graph(name: str, opset: int) -> onnx.ModelProto:
    """A graph by name: hand-made, or "network/tap", exported."""
    network, _, tap = name.partition("/")
    model = exported(network, tap).model if tap else GRAPHS[name]()
    return {17: downgraded, 18: lambda same: same, 19: raised}[opset](model)


@cache
def quantised(name: str, fmt: str, opset: int) -> Any:
    model = float_graph(name, opset)
    graph = parse_graph(model.SerializeToString(), where=name)
    images: Any = random_images()
    if "/" in name:
        pixels = CASES[name.partition("/")[0]].images(6).numpy().astype(np.float32)
        images = ArrayImages(pixels)
    return quantise_graph(graph, images, number_format(fmt), CalibrateOptions(method="minmax")).model


def is_too_thin(name: str) -> bool:
    """The tests' tiny networks have thin convolutions, which gain nothing in integers."""
    graph = parse_graph(float_graph(name, 18).SerializeToString(), where=name)
    try:
        place(graph, number_format("trt-s8s8"))
    except BadInputError as refusal:
        return "Nothing in the graph can be quantised" in refusal.message
    return False


def test_the_targets_name_several_versions() -> None:
    assert len(WANTED) >= 4
    assert {opset for _, opset, _ in WANTED} >= {17, 19}
    assert len(TYPED_TABLES) >= 2


NAMES = [*GRAPHS, *("/".join(each) for each in EXPORTED)]


@pytest.mark.parametrize(("fmt", "opset", "operators"), WANTED)
@pytest.mark.parametrize("name", NAMES)
def test_what_is_written_for_a_target_keeps_the_rules_and_its_table(
    name: str, fmt: str, opset: int, operators: str
) -> None:
    if is_too_thin(name):
        pytest.skip("nothing in it gains from integers")
    model = quantised(name, fmt, opset)
    onnx.checker.check_model(model, full_check=True)
    assert check_tensorrt_rules(model) == ()
    assert count_boundaries(model).quantised >= 1
    # Quantisation brings no operator that the table refuses: what it says is said of the float graph, too.
    said = {(each.op_type, each.why) for each in check_operators(float_graph(name, opset), load_table(operators))}
    assert {(each.op_type, each.why) for each in check_operators(model, load_table(operators))} <= said


@pytest.mark.parametrize("operators", TYPED_TABLES)
@pytest.mark.parametrize("name", NAMES)
def test_fp16_types_keep_the_rules_and_the_tables_of_versions_that_take_them(name: str, operators: str) -> None:
    # FP16 needs no quantisation.
    model = float_graph(name, 18) if is_too_thin(name) else quantised(name, "trt-s8s8", 18)
    typed = type_half(model).model
    assert check_tensorrt_rules(typed) == ()
    table = load_table(operators)
    said = {(each.op_type, each.why) for each in check_operators(model, table)}
    assert {(each.op_type, each.why) for each in check_operators(typed, table)} <= said


@pytest.mark.parametrize("name", [name for name in table_names() if name.startswith("tensorrt-8")])
def test_versions_that_lack_the_operator_set_refuse_fp16_scales(name: str) -> None:
    typed = type_half(quantised("residual", "trt-s8s8", 18)).model
    assert any("operator set 19" in each.why for each in check_operators(typed, load_table(name)))
