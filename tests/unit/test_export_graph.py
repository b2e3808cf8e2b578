"""What an exported file looks like: the promised inputs and outputs, and nothing of the machine that wrote it."""

from __future__ import annotations

import getpass
import os
import socket
import subprocess
import sys
from collections import Counter, OrderedDict
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from exported import OPSET, export_afresh, exported, loaded
from networks import CASES, TAPS, DependsOnData
from torch import nn

from edgekit.engines.protocol import EngineOptions
from edgekit.engines.reference import ENGINE as REFERENCE
from edgekit.errors import BadInputError, DefectError
from edgekit.export.explained import ExplainedOnnx, explained_onnx
from edgekit.export.origin import MODULE_KEY, OUTPUT_KEY
from edgekit.export.trace import trace
from edgekit.teacher.options import MapOptions


def dims(value: onnx.ValueInfoProto) -> list[int | str]:
    return [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]


@pytest.mark.parametrize(("name", "tap"), TAPS)
def test_inputs_and_outputs_are_those_of_an_explained_graph(name: str, tap: str) -> None:
    explained, case = exported(name, tap), CASES[name]
    graph, spec = explained.model.graph, explained.map_spec
    classes = int(case.make()(case.images(2)).shape[1])
    assert [(value.name, value.type.tensor_type.elem_type, dims(value)) for value in graph.input] == [
        ("image", onnx.TensorProto.FLOAT, ["batch", 3, *case.side]),
        ("class_index", onnx.TensorProto.INT32, ["batch"]),
    ]
    assert [(value.name, value.type.tensor_type.elem_type, dims(value)) for value in graph.output] == [
        ("logits", onnx.TensorProto.FLOAT, ["batch", classes]),
        ("attribution", onnx.TensorProto.FLOAT, ["batch", spec.height, spec.width]),
    ]


@pytest.mark.parametrize(("name", "tap"), TAPS)
def test_the_graph_is_plain_onnx_of_the_opset_that_was_asked_for(name: str, tap: str) -> None:
    model = exported(name, tap).model
    assert [(item.domain, item.version) for item in model.opset_import] == [("", OPSET)]
    assert not model.functions
    assert {node.domain for node in model.graph.node} == {""}
    assert {tensor.data_location for tensor in model.graph.initializer} == {onnx.TensorProto.DEFAULT}
    names = [tensor.name for tensor in model.graph.initializer]
    assert len(names) == len(set(names))
    read = {name for node in model.graph.node for name in node.input}
    assert set(names) <= read, "weights that nothing reads"
    # Dropout does nothing in evaluation, and everything else that is left must be there for a reason.
    assert not {"Dropout", "Identity", "If", "Loop"} & {node.op_type for node in model.graph.node}


@pytest.mark.parametrize(("name", "tap"), TAPS)
def test_a_file_says_nothing_about_where_it_was_written(name: str, tap: str) -> None:
    model = exported(name, tap).model
    assert not model.metadata_props
    assert (model.doc_string, model.producer_name, model.producer_version) == ("", "edgekit", "")
    assert not model.graph.doc_string
    assert not model.graph.metadata_props
    for item in (*model.graph.node, *model.graph.input, *model.graph.output, *model.graph.value_info):
        allowed = {MODULE_KEY, OUTPUT_KEY} if isinstance(item, onnx.NodeProto) else set()
        assert {entry.key for entry in item.metadata_props} <= allowed
        assert not item.doc_string
    data = model.SerializeToString()
    private = {str(Path.home()), str(Path.cwd()), str(Path(torch.__file__).parent), sys.prefix, socket.gethostname()}
    # A home of "/" or a user called "a" would be found in anything.
    private = {text for text in (*private, getpass.getuser()) if len(text) > 4}
    private |= {"Traceback", ".py", "site-packages", "networks.", "torch"}
    assert not [text for text in private if text.encode() in data]


@pytest.mark.parametrize(("name", "tap"), TAPS)
def test_no_batch_normalisation_is_left_behind_a_convolution(name: str, tap: str) -> None:
    graph = exported(name, tap).model.graph
    readers = Counter(name for node in graph.node for name in node.input)
    readers.update(value.name for value in graph.output)
    producers = {output: node for node in graph.node for output in node.output}
    behind = [
        node.name
        for node in graph.node
        if node.op_type == "BatchNormalization"
        and node.input[0] in producers
        and producers[node.input[0]].op_type == "Conv"
        and readers[node.input[0]] == 1
    ]
    assert not behind
    # Only the dense network has normalisations in front of its convolutions.
    if name != "dense":
        assert "BatchNormalization" not in {node.op_type for node in graph.node}


def content(explained: ExplainedOnnx) -> bytes:
    return explained.model.SerializeToString(deterministic=True)


def test_the_same_network_gives_the_same_bytes() -> None:
    assert content(export_afresh("inverted", "last")) == content(exported("inverted", "last"))


def test_another_process_gives_the_same_bytes() -> None:
    program = (
        "import sys; from exported import exported; explained = exported('max-pooled-head', 'features');"
        "sys.stdout.buffer.write(explained.model.SerializeToString(deterministic=True))"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "7", "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True, env=environment)
    assert done.stdout == content(exported("max-pooled-head", "features"))


def test_the_tap_is_found_when_none_is_named_and_another_opset_is_obeyed() -> None:
    explained = export_afresh("inverted", None, opset=20)
    assert explained.map_spec.tap == "last"
    assert [(item.domain, item.version) for item in explained.model.opset_import] == [("", 20)]


def test_the_closed_form_can_be_switched_off_and_says_the_same(tmp_path: Path) -> None:
    case = CASES["inverted"]
    traced = export_afresh("inverted", "last", use_closed_form=False)
    assert traced.form == "traced gradient"
    images = case.images(5).numpy()
    asked = np.array([-1, 0, 1, 2, 3], dtype=np.int32)
    answers = []
    for explained in (traced, exported("inverted", "last")):
        path = tmp_path / f"{explained.form}.onnx"
        path.write_bytes(explained.model.SerializeToString())
        with REFERENCE.open(path, EngineOptions()) as runner:
            answers.append(runner.run(images, asked))
    assert np.array_equal(answers[0].logits, answers[1].logits)
    scale = np.abs(answers[1].attribution).max()
    assert np.abs(answers[0].attribution - answers[1].attribution).max() < 1e-5 * scale


def test_exporting_leaves_the_network_as_it_was() -> None:
    case = CASES["head-reads-input"]
    model = case.make()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    explained_onnx(loaded(case, "features", model), MapOptions(), use_closed_form=True, opset=OPSET)
    assert not model.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert not any(len(module._forward_hooks) for module in model.modules())


# Networks that cannot be exported


def refusal(model: nn.Module, tap: str = "features") -> BadInputError:
    case = CASES["head-reads-input"]
    with pytest.raises(BadInputError) as caught:
        explained_onnx(
            loaded(case, tap, model.eval().requires_grad_(False)), MapOptions(), use_closed_form=True, opset=OPSET
        )
    return caught.value


def test_control_flow_that_depends_on_data_is_refused() -> None:
    error = refusal(DependsOnData())
    assert "cannot be traced" in error.message
    assert "control flow" in (error.hint or "")
    assert "\n" not in (error.found or "")


class _Loops(nn.Module):
    """As often through the same layer as the brightest pixel says."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Conv2d(3, 4, 3, padding=1)
        self.fc = nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.features(x)
        for _ in range(int(x.max().item())):
            y = y * 2
        return self.fc(y.mean((2, 3)))


class _Numpy(_Loops):
    """Leaves torch in the middle."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(torch.from_numpy(self.features(x).detach().numpy()).mean((2, 3)))


@pytest.mark.parametrize("network", [_Loops, _Numpy])
def test_other_things_that_no_graph_can_say(network: type[nn.Module]) -> None:
    error = refusal(network())
    assert error.found
    assert error.found.strip()


class _Correlates(_Loops):
    """Uses an operation behind the tap whose gradient has no ONNX form."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(nn.functional.local_response_norm(self.features(x), 3).mean((2, 3)))


def test_an_operation_without_onnx_form_is_named() -> None:
    error = refusal(_Correlates())
    assert "cannot be written as ONNX" in error.message
    assert "avg_pool3d_backward" in (error.found or "")


@torch.library.custom_op("edgekit_tests::brightened", mutates_args=())
def _brightened(x: torch.Tensor) -> torch.Tensor:
    return x + 1


@_brightened.register_fake
def _(x: torch.Tensor) -> torch.Tensor:
    return torch.empty_like(x)


class _Brightens(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return _brightened(x)


def test_a_custom_operation_without_onnx_form_is_named() -> None:
    error = refusal(nn.Sequential(OrderedDict(bright=_Brightens(), features=nn.Conv2d(3, 4, 3), pool=_Pooled())))
    assert "cannot be written as ONNX" in error.message
    assert "brightened" in (error.found or "")


def test_the_module_of_a_custom_operation_without_gradient_is_named() -> None:
    error = refusal(nn.Sequential(OrderedDict(features=nn.Conv2d(3, 4, 3), bright=_Brightens(), pool=_Pooled())))
    assert "cannot be traced" in error.message
    assert error.where == "module 'bright'"
    assert "differentiate" in (error.hint or "")


class _Pooled(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean((2, 3))


def test_a_batch_of_one_would_make_a_constant_of_the_batch() -> None:
    with pytest.raises(DefectError):
        trace(lambda x: x + 1, (torch.zeros(1, 3),))
