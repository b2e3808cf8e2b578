"""The export stage: files that fit each other, checked on real images, or nothing at all."""

from __future__ import annotations

import copy
import io
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from exported import OPSET, exported, loaded
from networks import CASES
from onnx import numpy_helper

from edgekit.attribution.spec import MapSpec
from edgekit.core.canonical import read_json
from edgekit.core.digests import digest_array
from edgekit.core.stages import read_record
from edgekit.engines.protocol import EngineOptions
from edgekit.engines.reference import ENGINE as REFERENCE
from edgekit.errors import BadInputError
from edgekit.export import stage as module
from edgekit.export.explained import ExplainedOnnx
from edgekit.export.options import ExportOptions
from edgekit.export.stage import GRAPH_NAME, INTERFACE_NAME, ExportRequest, export
from edgekit.interface.card import ModelCard
from edgekit.teacher.checkpoint import save_checkpoint
from edgekit.teacher.load_options import LoadOptions
from edgekit.teacher.methods.registry import METHODS

NAME, TAP = "max-pooled-head", "features"


class Images:
    """Prepared images that say how they were asked for."""

    def __init__(self, count: int, seed: int = 3) -> None:
        self._images = CASES[NAME].images(count, seed).numpy()
        self.asked: list[int] = []

    @property
    def digests(self) -> tuple[str, ...]:
        return tuple(digest_array(image) for image in self._images)

    def batches(self, batch_size: int) -> Iterator[np.ndarray]:
        self.asked.append(batch_size)
        for start in range(0, len(self._images), batch_size):
            yield self._images[start : start + batch_size]


@pytest.fixture
def request_(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ExportRequest:
    """A request for a graph that was exported before, except where a test takes that short cut away."""
    checkpoint = loaded(CASES[NAME], TAP)
    save_checkpoint(tmp_path / "m.pt", checkpoint)
    monkeypatch.setattr(module, "explained_onnx", lambda *_, **__: exported(NAME, TAP))
    load = LoadOptions(arch=checkpoint.arch)
    return ExportRequest(tmp_path / "m.pt", load, Images(9), OPSET, ExportOptions(parity_images=6))


def test_from_checkpoint_to_checked_graph(
    request_: ExportRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    record = export(request_, tmp_path / "out")
    assert sorted(record.outputs) == [INTERFACE_NAME, GRAPH_NAME]
    assert record == read_record(tmp_path / "out")
    assert record.facts["form"] == "traced gradient"
    assert record.facts["parity"]["samples"] == 6
    assert 0 < record.facts["parity"]["attribution"] < record.facts["tolerance"] == 1e-4
    assert record.facts["bytes"] == (tmp_path / "out" / GRAPH_NAME).stat().st_size
    assert request_.images.asked == [6]

    interface = read_json(tmp_path / "out" / INTERFACE_NAME)
    card = loaded(CASES[NAME], TAP).card
    assert ModelCard.from_dict(interface["card"]) == card
    assert MapSpec.from_dict(interface["map"], where="map") == MapSpec("grad-cam", TAP, 7, 7, True)
    assert interface["form"] == "traced gradient"

    model = onnx.load(tmp_path / "out" / GRAPH_NAME)
    assert record.facts["nodes"] == len(model.graph.node)
    with REFERENCE.open(tmp_path / "out" / GRAPH_NAME, EngineOptions()) as runner:
        images = CASES[NAME].images(2)
        answer = runner.run(images.numpy(), np.full(2, -1, dtype=np.int32))
    assert np.allclose(answer.logits, CASES[NAME].make()(images).numpy(), atol=1e-5)


def test_done_once(request_: ExportRequest, tmp_path: Path) -> None:
    first = export(request_, tmp_path / "out")
    assert export(replace(request_, images=Images(9)), tmp_path / "out") == first
    for other in (
        replace(request_, images=Images(9, seed=4)),
        replace(request_, opset=19),
        replace(request_, options=ExportOptions(parity_images=5)),
        replace(request_, load=replace(request_.load, card={"tap": TAP})),
    ):
        assert export(other, tmp_path / "out").key != first.key


def test_a_graph_that_says_something_else_is_not_left_behind(
    request_: ExportRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sound = exported(NAME, TAP)
    damaged = copy.deepcopy(sound.model)
    weight = next(item for item in damaged.graph.initializer if len(item.dims) == 4)
    weight.CopyFrom(numpy_helper.from_array(-numpy_helper.to_array(weight), weight.name))
    monkeypatch.setattr(module, "explained_onnx", lambda *_, **__: ExplainedOnnx(damaged, sound.map_spec, sound.form))
    with pytest.raises(BadInputError, match="does not answer as the network does"):
        export(request_, tmp_path / "out")
    assert sorted(item.name for item in tmp_path.iterdir()) == ["m.pt"]


def test_without_an_image_nothing_can_be_checked(request_: ExportRequest, tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="needs at least one image"):
        export(replace(request_, images=Images(0)), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_fewer_images_than_wished_for_will_do(request_: ExportRequest, tmp_path: Path) -> None:
    record = export(replace(request_, images=Images(2)), tmp_path / "out")
    assert record.facts["parity"]["samples"] == 2


def test_an_unknown_method_lists_the_known(request_: ExportRequest, tmp_path: Path) -> None:
    with pytest.raises(BadInputError) as caught:
        export(replace(request_, options=ExportOptions(method="score-cam")), tmp_path / "out")
    assert caught.value.expected == "one of " + ", ".join(METHODS.names())


@pytest.mark.parametrize("options", [{"parity_tolerance": 0.0}, {"parity_tolerance": -1.0}, {"parity_images": 0}])
def test_options_out_of_range(options: dict[str, float]) -> None:
    with pytest.raises(BadInputError, match="export"):
        ExportOptions(**options)  # type: ignore[arg-type]


def test_a_tap_that_does_not_exist_is_said(tmp_path: Path) -> None:
    checkpoint = loaded(CASES[NAME], TAP)
    save_checkpoint(tmp_path / "m.pt", checkpoint)
    load = LoadOptions(arch=checkpoint.arch, card={"tap": "layer4"})
    with pytest.raises(BadInputError, match="no module 'layer4'"):
        export(ExportRequest(tmp_path / "m.pt", load, Images(2), OPSET, ExportOptions()), tmp_path / "out")


def test_weights_that_are_not_finite_are_no_graph(tmp_path: Path) -> None:
    state = CASES[NAME].make().state_dict()
    state["fc.weight"] = state["fc.weight"] / 0
    buffer = io.BytesIO()
    torch.save(state, buffer)
    (tmp_path / "m.pt").write_bytes(buffer.getvalue())
    load = LoadOptions("networks:MaxPooledHead", None, loaded(CASES[NAME], TAP).card.to_dict())
    with pytest.raises(BadInputError, match="not finite"):
        export(ExportRequest(tmp_path / "m.pt", load, Images(2), OPSET, ExportOptions()), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_pass_that_breaks_the_parity_is_undone_and_recorded(
    request_: ExportRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from edgekit.export.passes.batch_norm import FoldBatchNorm

    def harm(self: FoldBatchNorm, model: onnx.ModelProto) -> int:
        weight = next(item for item in model.graph.initializer if len(item.dims) == 4)
        weight.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(weight) * 2, weight.name))
        return 1

    monkeypatch.setattr(FoldBatchNorm, "apply", harm)
    passes = export(request_, tmp_path / "out").facts["passes"]
    undone = [report for report in passes if report["rolled_back"]]
    assert [report["name"] for report in undone] == ["fold-batch-norm"]
    assert "answers differently: logits off by" in undone[0]["rolled_back"]


def test_a_graph_that_the_engine_cannot_read_is_refused(request_: ExportRequest, tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match=r"what TensorRT 8\.6 cannot read") as caught:
        export(replace(request_, operators="tensorrt-8.6"), tmp_path / "out")
    assert "export with opset 17" in str(caught.value.hint)
    assert not (tmp_path / "out").exists()
    record = export(replace(request_, operators="tensorrt-10.0"), tmp_path / "out")
    assert record.options["operators"] == "tensorrt-10.0"


def test_a_fixed_batch_is_checked_as_such(request_: ExportRequest, tmp_path: Path) -> None:
    record = export(replace(request_, images=Images(5), options=ExportOptions(batch=3)), tmp_path / "out")
    assert record.facts["parity"]["samples"] == 5
    model = onnx.load(tmp_path / "out" / "model.onnx")
    assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_value == 3
