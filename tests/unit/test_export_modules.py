"""Nodes know their module, and a fault in one layer of a graph is found in that layer."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from exported import OPSET, exported, loaded
from networks import CASES, TAPS
from onnx import numpy_helper

from edgekit.errors import BadInputError
from edgekit.export.explained import cleaned_onnx, explained_onnx
from edgekit.export.module_names import module_of
from edgekit.export.origin import MAP, module_of_node, output_tensors
from edgekit.export.parity import check_parity, compare, measure_parity
from edgekit.export.parting import first_parting
from edgekit.export.trace import trace
from edgekit.export.truth import truth_of
from edgekit.teacher.explain import Explainer
from edgekit.teacher.methods.grad_cam import GRAD_CAM
from edgekit.teacher.options import MapOptions
from edgekit.teacher.tap import Tap

TOLERANCE = 1e-4


@pytest.mark.parametrize(("name", "tap"), TAPS)
def test_every_node_names_a_module_of_the_network_or_the_map(name: str, tap: str) -> None:
    modules = {module for module, _ in CASES[name].make().named_modules()}
    nodes = exported(name, tap).model.graph.node
    assert {module_of_node(node) for node in nodes} <= {*modules, MAP} - {""}
    # Convolutions and matrix products have weights, which always are a module's.
    assert all(module_of_node(node) != MAP for node in nodes if node.op_type in {"Conv", "ConvTranspose", "Gemm"})


def test_gradients_belong_to_the_module_they_are_of() -> None:
    nodes = exported("residual", "layer1").model.graph.node
    transposed = [module_of_node(node) for node in nodes if node.op_type == "ConvTranspose"]
    assert transposed == ["layer2.downsample.0", "layer2.conv2", "layer2.conv1"]


def test_names_of_a_traced_graph() -> None:
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.Tanh(), torch.nn.Flatten())
    model.eval().requires_grad_(False)

    def gradient(images: torch.Tensor) -> torch.Tensor:
        logits, pullback = torch.func.vjp(model, images)
        return pullback(torch.sin(logits))[0]

    graph = trace(gradient, (torch.rand(2, 3, 6, 6),), model)
    named = {str(node.target): module_of(node) for node in graph.graph.nodes if node.op == "call_function"}
    assert named["aten.tanh.default"] == "1"
    assert named["aten.tanh_backward.default"] == "1"
    assert named["aten.sin.default"] == MAP
    convolutions = [module_of(node) for node in graph.graph.nodes if node.target is torch.ops.aten.convolution.default]
    assert convolutions == ["0", "0"]
    assert not model[0]._forward_hooks
    assert not model[0]._forward_pre_hooks


@pytest.mark.parametrize(("name", "tap"), TAPS)
def test_the_outputs_that_are_marked_are_the_modules(name: str, tap: str) -> None:
    """With no fault planted every marked tensor agrees, to float32 rounding: a wrong mark would not."""
    case, graph = CASES[name], exported(name, tap).model
    images = case.images(3).numpy()
    assert len(output_tensors(graph)) >= 4
    found = first_parting(case.make(), graph, images, TOLERANCE)
    assert found.module == MAP, str(found)


def planted(graph: onnx.ModelProto, module: str) -> onnx.ModelProto:
    """The first weight of the node whose output is the module's, off by one percent."""
    faulty = onnx.ModelProto()
    faulty.CopyFrom(graph)
    tensor = output_tensors(faulty)[module]
    node = next(node for node in faulty.graph.node if tensor in node.output)
    weight = next(item for item in faulty.graph.initializer if item.name == node.input[1])
    values = numpy_helper.to_array(weight)
    weight.CopyFrom(numpy_helper.from_array(values * np.float32(1.01), weight.name))
    return faulty


@pytest.mark.parametrize(
    ("name", "tap", "module"),
    [
        ("residual", "layer1", "bn1"),
        ("residual", "layer1", "layer1.bn2"),
        ("residual", "layer1", "layer2.bn1"),
        ("residual", "layer1", "fc"),
        ("vgg", "features.1", "features.4"),
        ("vgg", "features.1", "classifier.0"),
        ("mobile", "block1", "block1.3"),
        ("mobile", "block1", "block2.3.reduce"),
        ("mobile", "block1", "classifier.2"),
        ("norms", "features", "mix.0"),
    ],
)
def test_a_planted_fault_is_named(name: str, tap: str, module: str, tmp_path: Path) -> None:
    case = CASES[name]
    model, images = case.make(), case.images(8).numpy()
    faulty = planted(exported(name, tap).model, module)
    found = first_parting(model, faulty, images, TOLERANCE)
    assert found.module == module
    assert found.error > TOLERANCE
    (tmp_path / "m.onnx").write_bytes(faulty.SerializeToString())
    parity = measure_parity(model, Explainer(GRAD_CAM, (Tap(tap),)), tmp_path / "m.onnx", images)
    with pytest.raises(BadInputError, match="does not answer") as caught:
        check_parity(parity, TOLERANCE, lambda: found)
    assert repr(module) in str(caught.value.where)
    assert repr(output_tensors(faulty)[module]) in str(caught.value.where)


def test_a_fault_of_the_map_alone() -> None:
    case, faulty = CASES["residual"], onnx.ModelProto()
    faulty.CopyFrom(exported("residual", "layer1").model)
    transposed = next(node for node in faulty.graph.node if node.op_type == "ConvTranspose")
    weight = next(item for item in faulty.graph.initializer if item.name == transposed.input[1])
    others = [node for node in faulty.graph.node if weight.name in node.input and node is not transposed]
    assert not others
    weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight) * 2, weight.name))
    found = first_parting(case.make(), faulty, case.images(2).numpy(), TOLERANCE)
    assert found.module == MAP
    assert "gradient of the map" in str(found)


def test_the_stage_names_the_layer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from test_export_stage import Images

    from edgekit.export import stage
    from edgekit.export.options import ExportOptions
    from edgekit.teacher.checkpoint import save_checkpoint
    from edgekit.teacher.load_options import LoadOptions

    checkpoint = loaded(CASES["max-pooled-head"], "features")
    save_checkpoint(tmp_path / "m.pt", checkpoint)
    true = stage.explained_onnx

    def wrong(*args: object, **kwargs: object) -> object:
        found = true(*args, **kwargs)  # type: ignore[arg-type]
        return replace(found, model=planted(found.model, "fc"))

    monkeypatch.setattr(stage, "explained_onnx", wrong)
    request = stage.ExportRequest(
        tmp_path / "m.pt", LoadOptions(arch=checkpoint.arch), Images(5), OPSET, ExportOptions()
    )
    with pytest.raises(BadInputError, match="does not answer") as caught:
        stage.export(request, tmp_path / "out")
    assert "'fc'" in str(caught.value.where)


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize(("name", "tap"), [("residual", "layer1"), ("vgg", "features"), ("norms", "mix")])
def test_a_fixed_batch(name: str, tap: str, batch: int, tmp_path: Path) -> None:
    case = CASES[name]
    raw = explained_onnx(loaded(case, tap), MapOptions(), use_closed_form=True, opset=OPSET)
    fixed, reports = cleaned_onnx(raw, lambda _model: None, batch=batch)
    assert [report.rolled_back for report in reports] == [None] * len(reports)
    for value in (*fixed.model.graph.input, *fixed.model.graph.output):
        assert value.type.tensor_type.shape.dim[0].dim_value == batch
    assert not [node for node in fixed.model.graph.node if node.op_type in {"Shape", "Concat"} and name != "dense"]
    assert b"batch" not in fixed.model.SerializeToString()
    (tmp_path / "m.onnx").write_bytes(fixed.model.SerializeToString())
    truth = truth_of(case.make(), Explainer(GRAD_CAM, (Tap(tap),)), case.images(7).numpy())
    check_parity(compare(truth, tmp_path / "m.onnx"), TOLERANCE)
