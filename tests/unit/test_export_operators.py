"""Operator tables: their form and sources, and that what a parser cannot read is named with its module."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
import pytest
from explained_graphs import GRAPHS, GraphBuilder
from exported import exported, raw_export
from onnx import TensorProto, helper, numpy_helper

from edgekit.errors import BadInputError, DefectError
from edgekit.export import operator_table
from edgekit.export.operator_check import check_operators, require_operators, satisfied_versions
from edgekit.export.operator_rules import RULES
from edgekit.export.operator_table import load_table, table_names
from edgekit.targets.loader import Target

OLD, NEW = load_table("tensorrt-8.6"), load_table("tensorrt-10.15")


def small(*nodes: onnx.NodeProto, opset: int = 17, rank: int = 4, **constants: object) -> onnx.ModelProto:
    graph = helper.make_graph(
        list(nodes),
        "small",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3, 8, 8, 8][:rank])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)


def why(model: onnx.ModelProto, table: operator_table.OperatorTable = OLD) -> str:
    return "; ".join(f"{problem.op_type}: {problem.why}" for problem in check_operators(model, table))


@pytest.mark.parametrize("name", table_names())
def test_a_table_is_written_well_and_says_where_it_comes_from(name: str) -> None:
    table = load_table(name)
    assert table.name == name == f"{table.engine}-{table.version}"
    assert table.opset[0] <= 17
    assert table.basis
    for source in table.sources:
        assert source["file"] in {"onnx/onnx-tensorrt, docs/operators.md", "onnx/onnx-tensorrt, docs/Changelog.md"}
        assert source["commit"] is None or len(str(source["commit"])) == 40
    known = {schema.name for schema in onnx.defs.get_all_schemas_with_history()}
    # Operators of Caffe2's day, which ONNX dropped and the parser still lists; and those newer than the installed onnx.
    strange = {"ImageScaler", "ParametricSoftplus", "ScaledTanh", "Scatter", "Upsample", "TensorScatter"}
    assert set(table.operators) - known <= strange
    types = {"FP32", "FP16", "BF16", "FP8", "FP4", "INT4", "INT8", "INT32", "INT64", "UINT8", "BOOL"}
    for operator in table.operators.values():
        assert set(operator.types) <= types
        assert all(restriction.rule in RULES for restriction in operator.restrictions)
        assert all(restriction.text for restriction in operator.restrictions)


def test_versions_are_in_order_and_grow() -> None:
    assert table_names() == tuple(f"tensorrt-{v}" for v in ("8.5", "8.6", "10.0", "10.3", "10.6", "10.13", "10.15"))
    tables = [load_table(name) for name in table_names()]
    for older, newer in pairwise(tables):
        supported = {name for name, operator in older.operators.items() if operator.supported}
        assert supported <= {name for name, operator in newer.operators.items() if operator.supported}
        assert older.opset[1] <= newer.opset[1]


@pytest.mark.parametrize(
    ("table", "operator", "supported"),
    [
        ("8.5", "LayerNormalization", False),
        ("8.6", "LayerNormalization", True),
        ("8.5", "IsInf", False),
        ("10.6", "STFT", True),
        ("10.3", "STFT", False),
        ("10.3", "HannWindow", False),
        ("10.15", "DFT", False),
        ("10.6", "Gelu", True),
        ("8.5", "ScatterND", True),
    ],
)
def test_lines_as_published(table: str, operator: str, supported: bool) -> None:
    assert load_table(f"tensorrt-{table}").operators[operator].supported is supported


def test_an_unknown_table_and_a_wrong_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match=r"tensorrt-8\.4") as caught:
        load_table("tensorrt-8.4")
    assert "tensorrt-8.6" in str(caught.value.expected)
    wrong = {"format": "edgekit.operators/1", "engine": "other", "version": "1.0"}
    (tmp_path / "tensorrt-1.0.json").write_text(json.dumps(wrong))
    monkeypatch.setattr(operator_table.resources, "files", lambda _package: tmp_path)
    with pytest.raises(DefectError, match="written wrongly"):
        load_table("tensorrt-1.0")


def test_an_operator_that_is_not_supported_or_not_known() -> None:
    assert "Det: is not supported of TensorRT 8.6" in why(small(helper.make_node("Det", ["x"], ["y"])))
    assert "Mish: is not in the table" in why(small(helper.make_node("Mish", ["x"], ["y"]), opset=18))
    odd = helper.make_node("Relu", ["x"], ["y"], domain="com.example")
    model = small(odd)
    model.opset_import.append(helper.make_opsetid("com.example", 1))
    assert "Relu: is not in the table" in why(model)


def test_the_operator_set() -> None:
    relu = helper.make_node("Relu", ["x"], ["y"])
    assert why(small(relu)) == ""
    assert "reads 1 to 17" in why(small(relu, opset=18))
    assert "reads 9 to 24" in why(small(relu, opset=7), NEW)
    assert check_operators(small(relu, opset=18), OLD)[0].remedy == "export with opset 17"


pool = {"kernel_shape": [2, 2], "strides": [2, 2]}


@pytest.mark.parametrize(
    ("node", "constants", "table", "problem"),
    [
        (helper.make_node("MaxPool", ["x"], ["y", "i"], **pool), {}, OLD, "the output of indices"),
        (helper.make_node("MaxPool", ["x"], ["y"], **pool, dilations=[2, 2]), {}, NEW, "no dilation"),
        (helper.make_node("MaxPool", ["x"], ["y"], **pool, dilations=[1, 1]), {}, NEW, ""),
        (helper.make_node("MaxPool", ["x"], ["y"], **pool, dilations=[2, 2]), {}, OLD, ""),
        (helper.make_node("Squeeze", ["x", "a"], ["y"]), {"a": np.array([1])}, OLD, ""),
        (helper.make_node("CumSum", ["x", "a"], ["y"]), {"a": np.array(1)}, OLD, ""),
        (helper.make_node("Resize", ["x", "", "s"], ["y"], mode="cubic"), {"s": np.ones(4, np.float32)}, OLD, "linear"),
        (helper.make_node("Resize", ["x", "", "s"], ["y"]), {"s": np.ones(4, np.float32)}, OLD, ""),
        (helper.make_node("GridSample", ["x", "g"], ["y"]), {"g": np.ones((1, 2, 2, 2), np.float32)}, NEW, ""),
        (
            helper.make_node("QuantizeLinear", ["x", "s", "z"], ["y"]),
            {"s": np.float32(1), "z": np.int8(3)},
            OLD,
            "the zero point",
        ),
        (helper.make_node("QuantizeLinear", ["x", "s", "z"], ["y"]), {"s": np.float32(1), "z": np.int8(0)}, OLD, ""),
    ],
)
def test_restrictions(
    node: onnx.NodeProto, constants: dict[str, object], table: operator_table.OperatorTable, problem: str
) -> None:
    found = why(small(node, **constants), table)
    assert (problem in found) if problem else found == ""


def test_what_has_to_be_constant() -> None:
    model = small(
        helper.make_node("ReduceSum", ["x", "axes"], ["y"]), helper.make_node("Abs", ["a"], ["unused"]), a=np.array([1])
    )
    model.graph.node.insert(0, helper.make_node("Neg", ["a"], ["axes"]))
    assert "the list of axes has to be a constant" in why(model, NEW)


def test_element_types() -> None:
    to_double = helper.make_node("Cast", ["x"], ["d"], to=TensorProto.DOUBLE)
    assert why(small(to_double, helper.make_node("Exp", ["d"], ["y"]))) == ""  # read as float32
    to_int = helper.make_node("Cast", ["x"], ["i"], to=TensorProto.INT32)
    assert "Exp: the type INT32" in why(small(to_int, helper.make_node("Exp", ["i"], ["y"])))
    to_long = helper.make_node("Cast", ["x"], ["i"], to=TensorProto.INT64)
    assert why(small(to_long, helper.make_node("Neg", ["i"], ["y"]))) == ""
    to_byte = helper.make_node("Cast", ["x"], ["i"], to=TensorProto.UINT8)
    assert "Neg: the type UINT8" in why(small(to_byte, helper.make_node("Neg", ["i"], ["y"])), NEW)


def test_an_exported_graph_is_read_and_a_problem_names_its_module() -> None:
    model = onnx.ModelProto()
    model.CopyFrom(exported("residual", "layer1").model)
    assert satisfied_versions(model) == ("10.0", "10.3", "10.6", "10.13", "10.15")  # opset 18
    conv = next(
        node for node in model.graph.node if any("layer2.conv2" in entry.value for entry in node.metadata_props)
    )
    conv.op_type = "ConvInteger"
    (problem,) = check_operators(model, NEW)
    assert problem.module == "layer2.conv2"
    assert satisfied_versions(model) == ()
    with pytest.raises(BadInputError, match=r"ConvInteger in layer2\.conv2") as caught:
        require_operators(model, NEW)
    assert "'layer2.conv2'" in str(caught.value.hint)


@pytest.mark.parametrize(("name", "tap"), [("vgg", "features.1"), ("max-pooled-head", "features"), ("norms", "mix")])
@pytest.mark.parametrize("opset", [17, 19])
def test_gradients_that_picked_scatter_nothing(name: str, tap: str, opset: int) -> None:
    from exported import export_afresh

    model = export_afresh(name, tap, opset=opset).model
    kinds = {node.op_type for node in model.graph.node}
    assert not kinds & {"ScatterElements", "ScatterND", "GatherElements", "GatherND"}
    assert set(satisfied_versions(model)) >= ({"8.6"} if opset == 17 else {"10.0", "10.15"})


@pytest.mark.parametrize("graph", GRAPHS)
def test_graphs_made_by_hand_are_read_by_newer_versions(graph: str) -> None:
    assert satisfied_versions(GRAPHS[graph]()) == ("10.0", "10.3", "10.6", "10.13", "10.15")


def test_many_problems_are_counted() -> None:
    g = GraphBuilder()
    x = "image"
    for _ in range(7):
        x = g.op("Det", x)
    model = small(*g.nodes)
    with pytest.raises(BadInputError, match="and 2 more"):
        require_operators(model, OLD)


def test_a_target_may_name_a_table() -> None:
    fields = {
        "name": "t",
        "title": "t",
        "engines": ("ort-cpu",),
        "number_format": "x86-u8s8",
        "opset": 17,
        "channel_multiple": 1,
        "machines": ("x86_64",),
        "status": "for a test",
    }
    assert Target(**fields).operators is None
    assert Target(**fields, operators="tensorrt-8.6").to_dict()["operators"] == "tensorrt-8.6"
    with pytest.raises(DefectError, match="operators"):
        Target(**fields, operators="tensorrt-1")


def test_raw_graphs_have_names_too() -> None:
    model = raw_export("residual", "layer1").model
    assert all(any(entry.key == "edgekit.module" for entry in node.metadata_props) for node in model.graph.node)
