"""Training with quantisation for TensorRT ends in a graph with FP16 types, too."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
import torch
from test_qat_stage import CARD, images

from edgekit.calibrate.options import CalibrateOptions
from edgekit.calibrate.stage import CalibrateRequest, calibrate
from edgekit.compress.options import CompressOptions, FinetuneOptions, MatchingOptions, PruneOptions, QatOptions
from edgekit.core.digests import digest_file
from edgekit.core.stages import StageRecord
from edgekit.engines.half_graph import SOURCE_KEY, half_graph_beside
from edgekit.engines.made_of import STUDENT_KEY, TEACHER_KEY
from edgekit.errors import BadInputError
from edgekit.export.options import ExportOptions
from edgekit.export.stage import ExportRequest, export
from edgekit.qat.stage import QatRequest, qat
from edgekit.teacher.architectures.registry import ARCHITECTURES
from edgekit.teacher.checkpoint import LoadedModel, save_checkpoint
from edgekit.teacher.load_options import LoadOptions


def trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, refuse: bool = False) -> StageRecord:
    arguments = {"depth": 8, "classes": 3, "widths": [16, 16, 16], "shortcut": "A"}
    torch.manual_seed(0)
    model = ARCHITECTURES.load("cifar_resnet")(**arguments).eval().requires_grad_(False)
    save_checkpoint(tmp_path / "net.pt", LoadedModel(model, CARD, "cifar_resnet", arguments, None, ""))
    export(ExportRequest(tmp_path / "net.pt", LoadOptions(), images(4), 18, ExportOptions()), tmp_path / "export")
    options = CalibrateOptions(method="minmax")
    calibrate(CalibrateRequest(tmp_path / "export/model.onnx", images(8), "trt-s8s8", options), tmp_path / "calibrate")
    wanted = QatRequest(
        teacher=tmp_path / "net.pt",
        student=tmp_path / "net.pt",
        exported=tmp_path / "export",
        calibrated=tmp_path / "calibrate",
        data=images(16),
        images=images(4),
        opset=18,
        options=QatOptions(epochs=1, learning_rate=0.01, scale_learning_rate=0.1),
        compress=CompressOptions(
            prune=PruneOptions(rate=0),
            finetune=FinetuneOptions(batch_size=16, flip=False),
            matching=MatchingOptions(loss="swa"),
        ),
        threads=1,
    )
    if refuse:
        # Weights that leave FP16 while they learn are rare: the check itself is made to find some.
        monkeypatch.setattr("edgekit.calibrate.half_copy.type_half", _beyond)
    return qat(wanted, tmp_path / "qat")


def _beyond(*_: object, **__: object) -> None:
    raise BadInputError("a value is beyond their range", where="layer 3", found="1e6")


def test_what_could_not_be_typed_is_in_record_and_summary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record = trained(tmp_path, monkeypatch, refuse=True)
    for key in ("fp16_types", "fp16_candidate"):
        assert record.facts[key] == {"written": False, "reason": "a value is beyond their range layer 3 1e6"}
    assert "no FP16 types for INT8 (a value is beyond their range layer 3 1e6)" in record.facts["summary"]
    assert "no FP16 candidate (" in record.facts["summary"]


def test_the_learned_graph_has_one_beside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record = trained(tmp_path, monkeypatch)
    assert {record.facts[key]["written"] for key in ("fp16_types", "fp16_candidate")} == {True}
    assert "calibrate/float16.onnx" in record.outputs
    learned = onnx.load(tmp_path / "qat" / "calibrate" / "float16.onnx")
    said = {item.key: item.value for item in learned.metadata_props}
    assert said[SOURCE_KEY] == digest_file(tmp_path / "qat" / "export" / "model.onnx")
    graph = tmp_path / "qat" / "calibrate" / "model.onnx"
    assert "calibrate/model.fp16.onnx" in record.outputs
    typed = onnx.load(half_graph_beside(graph))
    assert {item.key: item.value for item in typed.metadata_props} == {
        SOURCE_KEY: digest_file(graph),
        STUDENT_KEY: digest_file(tmp_path / "qat" / "student.pt"),
        TEACHER_KEY: digest_file(tmp_path / "net.pt"),
    }
    # The learned weights, not those that training began with.
    assert digest_file(half_graph_beside(graph)) != digest_file(tmp_path / "calibrate" / "model.fp16.onnx")
