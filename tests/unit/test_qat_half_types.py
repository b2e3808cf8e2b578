"""Training with quantisation for TensorRT ends in a graph with FP16 types, too."""

from __future__ import annotations

from pathlib import Path

import onnx
import torch
from test_qat_stage import CARD, images

from edgekit.calibrate.options import CalibrateOptions
from edgekit.calibrate.stage import CalibrateRequest, calibrate
from edgekit.compress.options import CompressOptions, FinetuneOptions, MatchingOptions, PruneOptions, QatOptions
from edgekit.core.digests import digest_file
from edgekit.engines.half_graph import SOURCE_KEY, half_graph_beside
from edgekit.export.options import ExportOptions
from edgekit.export.stage import ExportRequest, export
from edgekit.qat.stage import QatRequest, qat
from edgekit.teacher.architectures.registry import ARCHITECTURES
from edgekit.teacher.checkpoint import LoadedModel, save_checkpoint
from edgekit.teacher.load_options import LoadOptions


def test_the_learned_graph_has_one_beside_it(tmp_path: Path) -> None:
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
    record = qat(wanted, tmp_path / "qat")
    graph = tmp_path / "qat" / "calibrate" / "model.onnx"
    assert "calibrate/model.fp16.onnx" in record.outputs
    typed = onnx.load(half_graph_beside(graph))
    assert {item.key: item.value for item in typed.metadata_props} == {SOURCE_KEY: digest_file(graph)}
    # The learned weights, not those that training began with.
    assert digest_file(half_graph_beside(graph)) != digest_file(tmp_path / "calibrate" / "model.fp16.onnx")
