"""The qat stage over files: what it writes and keeps, that it repeats itself, and what it refuses."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from qat_networks import run
from torch import nn

from edgekit.calibrate.attribution.judge import Judge
from edgekit.calibrate.drift import Drift
from edgekit.calibrate.graph import LOGITS, read_graph
from edgekit.calibrate.options import CalibrateOptions
from edgekit.calibrate.qdq import serialise, write_qdq
from edgekit.calibrate.scale_table import read_scales
from edgekit.calibrate.stage import CalibrateRequest, calibrate
from edgekit.compress.options import (
    CompressOptions,
    DistilOptions,
    FinetuneOptions,
    MatchingOptions,
    PruneOptions,
    QatOptions,
)
from edgekit.core.canonical import read_json
from edgekit.core.digests import digest_array, digest_path
from edgekit.core.progress import NullObserver
from edgekit.core.stages import StageRecord
from edgekit.errors import BadInputError
from edgekit.export.options import ExportOptions
from edgekit.export.stage import ExportRequest, export
from edgekit.interface.card import InputSpec, ModelCard
from edgekit.interface.preprocess import preprocess
from edgekit.qat.interpreter import Interpreter, weight_names
from edgekit.qat.quantiser import Quantiser
from edgekit.qat.stage import QatRequest, qat
from edgekit.teacher.architectures.registry import ARCHITECTURES
from edgekit.teacher.capabilities import GRAPH_ONLY
from edgekit.teacher.checkpoint import LoadedModel, save_checkpoint
from edgekit.teacher.load_options import LoadOptions
from edgekit.teacher.loading import load_model

ARCH = "cifar_resnet"
# Option A: the shortcut strides, and pads channels with zeros.
ARGUMENTS: dict[str, Any] = {"depth": 8, "classes": 3, "widths": [6, 8, 10], "shortcut": "A"}
CARD = ModelCard(InputSpec(16, 16, std=(0.25, 0.25, 0.25)), ("a", "b", "c"))


@dataclass(frozen=True)
class Images:
    pixels: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int64]

    @property
    def digests(self) -> tuple[str, ...]:
        return tuple(digest_array(image) for image in self.pixels)

    def batches(self, batch_size: int) -> Any:
        for start in range(0, len(self.pixels), batch_size):
            yield preprocess(self.pixels[start : start + batch_size], CARD.input)


def images(count: int = 48, seed: int = 0) -> Images:
    source = np.random.default_rng(seed)
    return Images(source.integers(0, 256, (count, 16, 16, 3)).astype(np.uint8), source.integers(0, 3, count))


def network(seed: int, *, sparse: bool = False) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model: nn.Module = ARCHITECTURES.load(ARCH)(**ARGUMENTS).eval()
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.uniform_(module.weight, 0.5, 1.5)
                nn.init.normal_(module.bias, 0.1, 0.2)
            elif isinstance(module, nn.Conv2d) and sparse:
                module.weight.data *= torch.rand_like(module.weight) > 0.5
    return model.requires_grad_(False)


@pytest.fixture(scope="module")
def request_(tmp_path_factory: pytest.TempPathFactory) -> QatRequest:
    """A sparse student of another seed than the teacher, exported and calibrated."""
    folder = tmp_path_factory.mktemp("qat")
    for name, model in (("teacher", network(4)), ("student", network(5, sparse=True))):
        save_checkpoint(folder / f"{name}.pt", LoadedModel(model, CARD, ARCH, ARGUMENTS, None, ""))
    wanted = ExportRequest(folder / "student.pt", LoadOptions(), images(8), 18, ExportOptions())
    export(wanted, folder / "export")
    calibrated = CalibrateRequest(folder / "export/model.onnx", images(), "x86-u8s8", CalibrateOptions(method="minmax"))
    calibrate(calibrated, folder / "calibrate")
    return QatRequest(
        teacher=folder / "teacher.pt",
        student=folder / "student.pt",
        exported=folder / "export",
        calibrated=folder / "calibrate",
        data=images(),
        images=images(8),
        opset=18,
        options=QatOptions(epochs=2, learning_rate=0.01, scale_learning_rate=0.1),
        compress=CompressOptions(
            prune=PruneOptions(rate=0),
            finetune=FinetuneOptions(batch_size=16, flip=False),
            matching=MatchingOptions(loss="swa"),
            distil=DistilOptions(weight=0.5),
        ),
        threads=1,
    )


@pytest.fixture(scope="module")
def done(request_: QatRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[StageRecord, Path]:
    folder = tmp_path_factory.mktemp("done") / "qat"
    return qat(request_, folder), folder


def test_its_folder_stands_for_three_others(done: tuple[StageRecord, Path]) -> None:
    record, folder = done
    assert {
        "student.pt",
        "history.json",
        "export/model.onnx",
        "export/interface.json",
        "calibrate/scales.json",
        "calibrate/model.onnx",
        "calibrate/calibration.json",
    } <= set(record.outputs)
    graph, table = read_graph(folder / "export/model.onnx"), read_scales(folder / "calibrate/scales.json")
    assert (folder / "calibrate/model.onnx").read_bytes() == serialise(write_qdq(graph, table))
    said = read_json(folder / "calibrate/calibration.json")
    assert said["graph"] == graph.digest == table.provenance.graph
    assert said["method"] == {"name": "minmax, then learned", "parameters": dict(table.provenance.parameters)}
    assert table.provenance.parameters["qat"]["scale_learning_rate"] == 0.1


def test_the_shipped_graph_is_the_rounded_student(done: tuple[StageRecord, Path]) -> None:
    _, folder = done
    graph, table = read_graph(folder / "export/model.onnx"), read_scales(folder / "calibrate/scales.json")
    rounded = Interpreter(graph, weight_names(graph), Quantiser(graph, table)).eval()
    pixels = preprocess(images(16, seed=3).pixels, CARD.input)
    with torch.no_grad():
        wanted = rounded(torch.from_numpy(pixels)).numpy()
        exact = load_model(folder / "student.pt", LoadOptions()).model(torch.from_numpy(pixels)).numpy()
    for optimised in (False, True):
        (found,) = run(write_qdq(graph, table), pixels, [LOGITS], optimised=optimised)
        assert np.abs(found - wanted).max() <= np.abs(wanted).max() / 127
    # The student in float is near, but it is not what ships.
    assert 0 < np.abs(exact - wanted).max() < 0.2 * np.abs(exact).max()


def test_weights_scales_and_loss_moved_and_zeros_stayed(done: tuple[StageRecord, Path], request_: QatRequest) -> None:
    record, folder = done
    before = load_model(request_.student, LoadOptions()).model.state_dict()
    after = load_model(folder / "student.pt", LoadOptions()).model.state_dict()
    convolutions = [name for name, weight in before.items() if weight.dim() == 4]
    assert len(convolutions) == 7, "shortcuts of option A have no weights of their own"
    for name in convolutions:
        assert not torch.equal(before[name], after[name]), name
        assert bool((after[name][before[name] == 0] == 0).all()), name
    assert record.facts["held_zeros"] == sum(int((before[name] == 0).sum()) for name in convolutions) > 0
    assert len(record.facts["frozen_tensors"]) == 2, "the fixed weights of the two shortcuts"
    assert record.facts["largest_scale_change"] > 0
    epochs = read_json(folder / "history.json")["epochs"]
    assert epochs[-1]["loss"] < epochs[0]["loss"]
    assert record.facts["last_epoch"] == epochs[-1]
    assert epochs[-1]["matching"] > 0
    assert epochs[-1]["distillation"] > 0


def test_it_is_skipped_when_nothing_changed_and_repeats_itself_otherwise(
    done: tuple[StageRecord, Path], request_: QatRequest, tmp_path: Path
) -> None:
    record, folder = done

    class Listening(NullObserver):
        skipped: list[bool] = []  # noqa: RUF012 - one observer

        def stage_finished(self, stage: str, *, skipped: bool, seconds: float, summary: str) -> None:
            self.skipped.append(skipped)

    assert qat(request_, folder, Listening()) == record
    assert Listening.skipped == [True]
    again = qat(request_, tmp_path / "again")
    for name in ("student.pt", "history.json", "export/model.onnx", "calibrate/scales.json", "calibrate/model.onnx"):
        assert digest_path(tmp_path / "again" / name) == digest_path(folder / name), name
    assert again.key == record.key


def test_without_a_rate_for_scales_the_calibrated_ones_stay(request_: QatRequest, tmp_path: Path) -> None:
    options = QatOptions(epochs=1, learning_rate=0.01, scale_learning_rate=0)
    record = qat(replace(request_, options=options), tmp_path / "qat")
    before, after = (
        read_scales(folder / "scales.json") for folder in (request_.calibrated, tmp_path / "qat/calibrate")
    )
    assert before.activations == after.activations
    assert record.facts["largest_scale_change"] == 0


def test_no_epoch_is_refused(request_: QatRequest, tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="no epoch"):
        qat(replace(request_, options=QatOptions(epochs=0)), tmp_path / "qat")


def test_a_tap_that_the_export_merged_away_is_refused(request_: QatRequest, tmp_path: Path) -> None:
    matching = MatchingOptions(loss="swa", taps=("layer2.0.conv1",))
    asked = replace(request_, compress=dataclasses.replace(request_.compress, matching=matching))
    with pytest.raises(BadInputError, match="no tensor of the exported graph") as caught:
        qat(asked, tmp_path / "qat")
    assert "compress.matching.taps" in str(caught.value.hint)


def test_a_format_that_cannot_be_trained_is_refused() -> None:
    with pytest.raises(BadInputError, match="cannot be trained further") as caught:
        GRAPH_ONLY.check_qat(3, format_name="TorchScript", where="model.pt")
    assert caught.value.found == "qat.epochs 3"
    GRAPH_ONLY.check_qat(0, format_name="TorchScript", where="model.pt")


def test_rounding_and_biases_that_calibration_settled_give_way_to_training(
    request_: QatRequest, tmp_path: Path
) -> None:
    calibrated = CalibrateRequest(
        request_.exported / "model.onnx",
        images(),
        "x86-u8s8",
        CalibrateOptions(method="attribution", bins=256, adjust=False),
        CARD.input,
    )
    calibrate(calibrated, tmp_path / "calibrate")
    options = QatOptions(epochs=1, learning_rate=0.01)
    qat(replace(request_, calibrated=tmp_path / "calibrate", options=options), tmp_path / "qat")
    table = read_scales(tmp_path / "qat/calibrate/scales.json")
    assert not table.adjustments
    assert table.provenance.method == "attribution, then learned"


def test_the_table_of_an_adjusted_graph_is_refused(
    request_: QatRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gridded(_: Judge, candidates: Any) -> Any:
        name = next(name for name, item in candidates.items() if item.adjustments.input_grid is not None)
        nothing = Drift(0, 0, 0, 0, 0)
        return name, dict.fromkeys(candidates, nothing)

    # Whether a grid of their own is better for these images is not asked here.
    monkeypatch.setattr(Judge, "best", gridded)
    normalised = InputSpec(16, 16, mean=(0.4, 0.5, 0.6), std=(0.25, 0.25, 0.25))
    options = CalibrateOptions(method="attribution-quick", bins=256)
    calibrated = CalibrateRequest(request_.exported / "model.onnx", images(), "x86-u8s8", options, normalised)
    calibrate(calibrated, tmp_path / "calibrate")
    with pytest.raises(BadInputError, match="a graph that calibration had adjusted") as caught:
        qat(replace(request_, calibrated=tmp_path / "calibrate"), tmp_path / "qat")
    assert caught.value.where == str(tmp_path / "calibrate/scales.json")
    assert "calibrate.adjust false" in (caught.value.hint or "")
    assert not (tmp_path / "qat").exists()
