"""Every Q/DQ graph that we write for TensorRT, by target: its rules, its operator table, and the same with FP16 types.

Over hand-made graphs and exported networks. What an operator table says against a float graph is not counted against
its quantised form. TensorRT itself takes no part.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from explained_graphs import GRAPHS, ArrayImages, random_images
from exported import loaded
from networks import CASES, Residual, Vgg
from torch import nn

from edgekit.calibrate.boundaries import count_boundaries
from edgekit.calibrate.formats import NUMBER_FORMATS, number_format
from edgekit.calibrate.graph import parse_graph
from edgekit.calibrate.options import CalibrateOptions
from edgekit.calibrate.stage import quantise_graph
from edgekit.calibrate.tensorrt_rules import check_tensorrt_rules
from edgekit.export.explained import cleaned_onnx, explained_onnx
from edgekit.export.operator_check import check_operators
from edgekit.export.operator_table import load_table, table_names
from edgekit.export.opset import downgraded
from edgekit.half.opset import raised
from edgekit.half.typed import type_half
from edgekit.targets.loader import resolve_target, target_names
from edgekit.teacher.options import MapOptions

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


def wide_residual() -> nn.Module:
    """The tests' residual network with channels enough to gain from integers."""
    model = Residual()
    block = type(model.layer1)
    model.conv1, model.bn1 = nn.Conv2d(3, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16)
    model.layer1, model.layer2, model.fc = block(16, 16, 1), block(16, 24, 2), nn.Linear(24, 5)
    return model


def wide_vgg() -> nn.Module:
    """The same of the one that flattens."""
    model = Vgg()
    model.features[0], model.features[1] = nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16)
    model.features[4], model.classifier[0] = nn.Conv2d(16, 24, 3, padding=1), nn.Linear(24 * 5 * 3, 12)
    return model


# Exported networks: a traced gradient through a block, norms, and a head that flattens. Each takes seconds.
EXPORTED = {"residual/layer1": wide_residual, "norms/features": CASES["norms"].make, "vgg/features.1": wide_vgg}


@cache
def exported(name: str) -> onnx.ModelProto:
    network, _, tap = name.partition("/")
    torch.manual_seed(0)
    model = EXPORTED[name]().eval().requires_grad_(False)
    raw = explained_onnx(loaded(CASES[network], tap, model), MapOptions(), use_closed_form=True, opset=18)
    return cleaned_onnx(raw, lambda _model: None)[0].model


@cache
def float_graph(name: str, opset: int) -> onnx.ModelProto:
    """A graph by name: hand-made, or "network/tap", exported."""
    model = exported(name) if name in EXPORTED else GRAPHS[name]()
    return {17: downgraded, 18: lambda same: same, 19: raised}[opset](model)


@cache
def quantised(name: str, fmt: str, opset: int) -> Any:
    model = float_graph(name, opset)
    graph = parse_graph(model.SerializeToString(), where=name)
    images: Any = random_images()
    if name in EXPORTED:
        pixels = CASES[name.partition("/")[0]].images(6).numpy().astype(np.float32)
        images = ArrayImages(pixels)
    return quantise_graph(graph, images, number_format(fmt), CalibrateOptions(method="minmax")).model


def test_the_targets_name_several_versions() -> None:
    assert len(WANTED) >= 4
    assert {opset for _, opset, _ in WANTED} >= {17, 19}
    assert len(TYPED_TABLES) >= 2


NAMES = [*GRAPHS, *EXPORTED]


@pytest.mark.parametrize(("fmt", "opset", "operators"), WANTED)
@pytest.mark.parametrize("name", NAMES)
def test_what_is_written_for_a_target_keeps_the_rules_and_its_table(
    name: str, fmt: str, opset: int, operators: str
) -> None:
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
    model = quantised(name, "trt-s8s8", 18)
    typed = type_half(model).model
    assert check_tensorrt_rules(typed) == ()
    table = load_table(operators)
    said = {(each.op_type, each.why) for each in check_operators(model, table)}
    assert {(each.op_type, each.why) for each in check_operators(typed, table)} <= said


@pytest.mark.parametrize("name", [name for name in table_names() if name.startswith("tensorrt-8")])
def test_versions_that_lack_the_operator_set_refuse_fp16_scales(name: str) -> None:
    typed = type_half(quantised("residual", "trt-s8s8", 18)).model
    assert any("operator set 19" in each.why for each in check_operators(typed, load_table(name)))
