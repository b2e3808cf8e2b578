"""What `inspect` tells of a Q/DQ graph: its steps between float and integers, and the rules that it breaks."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
from explained_graphs import GRAPHS, random_images

from edgekit.api import inspect
from edgekit.calibrate.boundaries import count_boundaries
from edgekit.calibrate.formats import number_format
from edgekit.calibrate.graph import parse_graph
from edgekit.calibrate.options import CalibrateOptions
from edgekit.calibrate.stage import quantise_graph
from edgekit.calibrate.tensorrt_rules import check_tensorrt_rules


def quantised(fmt: str) -> onnx.ModelProto:
    graph = parse_graph(GRAPHS["residual"]().SerializeToString(), where="residual")
    model = quantise_graph(graph, random_images(), number_format(fmt), CalibrateOptions(method="minmax")).model
    assert isinstance(model, onnx.ModelProto)
    return model


def stored(model: onnx.ModelProto, folder: Path) -> Path:
    path = folder / "model.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def test_a_sound_graph_keeps_the_rules_and_its_steps_are_told(tmp_path: Path) -> None:
    model = quantised("trt-s8s8")
    found = inspect(stored(model, tmp_path))
    counted = count_boundaries(model)
    assert found.facts["rules of TensorRT"] == "all kept"
    assert found.facts["operations in integers"] == counted.quantised > 0
    steps = str(found.facts["steps between float and integers"])
    assert steps.startswith(f"{counted.entries} in, {counted.exits} out")
    assert len(found.tables) == 1
    assert found.to_dict()["facts"]["quantised"] == "yes"


def test_broken_rules_are_listed(tmp_path: Path) -> None:
    model = quantised("trt-s8s8")
    scale = next(node.input[1] for node in model.graph.node if node.op_type == "QuantizeLinear")
    next(item for item in model.graph.initializer if item.name == scale).CopyFrom(
        onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(
            next(item for item in model.graph.initializer if item.name == scale)) * -1, scale)
    )  # fmt: skip
    broken = check_tensorrt_rules(model)
    found = inspect(stored(model, tmp_path))
    assert broken
    assert found.facts["rules of TensorRT"] == f"{len(broken)} broken"
    assert [row[0] for row in found.tables[1].rows] == list(broken)


def test_a_graph_of_another_runtime_is_told_what_tensorrt_would_say(tmp_path: Path) -> None:
    found = inspect(stored(quantised("x86-u8s8"), tmp_path))
    assert "broken" in str(found.facts["rules of TensorRT"])
    assert found.tables[1].rows


@pytest.mark.parametrize("name", ["residual"])
def test_a_float_graph_has_no_pairs_to_tell_of(name: str, tmp_path: Path) -> None:
    found = inspect(stored(GRAPHS[name](), tmp_path))
    assert "rules of TensorRT" not in found.facts
