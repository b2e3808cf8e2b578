"""INT8: the teacher's engine without training, and students that learned with its rounding in place.

What is compared is the engine that ships: the explained graph with its Q/DQ nodes on ONNX Runtime, for answers, maps,
deletion and insertion. The relevance methods have no rules for rounding; they see the float weights that were learned.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from edgekit.calibrate.options import CalibrateOptions
from edgekit.calibrate.stage import MODEL_NAME, CalibrateRequest, calibrate
from edgekit.compress.options import CompressOptions, MatchingOptions
from edgekit.compress.stage import HISTORY_NAME, STUDENT_NAME
from edgekit.compress.training.plan import EpochRecord
from edgekit.core.canonical import read_json
from edgekit.engines.protocol import EngineOptions, Runner
from edgekit.engines.registry import ENGINES
from edgekit.export.options import ExportOptions
from edgekit.export.stage import GRAPH_NAME, ExportRequest, export
from edgekit.interface.card import InputSpec
from edgekit.interface.preprocess import preprocess
from edgekit.qat.stage import CALIBRATED_FOLDER, EXPORTED_FOLDER, QatRequest, qat
from edgekit.teacher.checkpoint import LoadedModel, save_checkpoint
from edgekit.teacher.load_options import LoadOptions
from edgekit.teacher.loading import load_model
from paper.compared import Compared
from paper.context import Setting
from paper.masked_images import MaskedImages
from paper.profiles import Recipe
from paper.units import Unit

__all__ = ["Learned", "int8_compared", "learn_rounding", "prepare_int8"]

TEACHER_NAME = "teacher.pt"
# Those of the target cpu-x86.
_NUMBER_FORMAT, _OPSET, _ENGINE = "x86-u8s8", 19, "ort-cpu"
_CALIBRATION_IMAGES, _PARITY_IMAGES = 128, 8


@dataclass(frozen=True)
class Learned:
    """A student of quantisation-aware training; see `paper.students.Student`."""

    compared: Compared
    history: tuple[EpochRecord, ...]
    facts: Mapping[str, Any]


@dataclass(frozen=True)
class _Prepared:
    """Training images as network input, in a fixed order."""

    images: MaskedImages
    spec: InputSpec

    @property
    def digests(self) -> tuple[str, ...]:
        return self.images.digests

    def batches(self, batch_size: int) -> Iterator[npt.NDArray[np.float32]]:
        for start in range(0, len(self.images), batch_size):
            yield preprocess(self.images.pixels[start : start + batch_size], self.spec)


def prepare_int8(teacher: nn.Module, setting: Setting, folder: Path) -> None:
    """Write the teacher's checkpoint, explained graph and scale table into a folder."""
    network = setting.network
    loaded = LoadedModel(
        teacher, setting.card, network.arch, {**network.arguments, "classes": len(setting.card.classes)}, None, ""
    )
    save_checkpoint(folder / TEACHER_NAME, loaded)
    export(
        ExportRequest(folder / TEACHER_NAME, LoadOptions(), _some(setting, _PARITY_IMAGES), _OPSET, _EXPORT),
        folder / EXPORTED_FOLDER,
    )
    images = _some(setting, _CALIBRATION_IMAGES)
    calibrate(
        CalibrateRequest(folder / EXPORTED_FOLDER / GRAPH_NAME, images, _NUMBER_FORMAT, CalibrateOptions()),
        folder / CALIBRATED_FOLDER,
    )


_EXPORT = ExportOptions(parity_images=_PARITY_IMAGES)


def _some(setting: Setting, count: int) -> _Prepared:
    """Training images, evenly over the set."""
    train = setting.train
    return _Prepared(train.chosen([index * len(train) // count for index in range(count)]), setting.card.input)


def learn_rounding(
    unit: Unit, prepared: Path, setting: Setting, recipe: Recipe, matching: MatchingOptions, folder: Path
) -> Learned:
    """Train the teacher's own network with its rounding in place.

    Args:
        unit: For its seed.
        prepared: What `prepare_int8` wrote.
        setting: Data and network.
        recipe: Epochs and rates.
        matching: The matching term.
        folder: Empty; everything that has to be kept is in memory afterwards.
    """
    request = QatRequest(
        teacher=prepared / TEACHER_NAME,
        student=prepared / TEACHER_NAME,
        exported=prepared / EXPORTED_FOLDER,
        calibrated=prepared / CALIBRATED_FOLDER,
        data=setting.train,
        images=_some(setting, _PARITY_IMAGES),
        opset=_OPSET,
        options=recipe.qat,
        compress=CompressOptions(finetune=recipe.finetune, matching=matching, distil=recipe.distil),
        export=_EXPORT,
        seed=unit.seed,
        threads=1,
    )
    record = qat(request, folder / "qat")
    epochs = read_json(folder / "qat" / HISTORY_NAME)["epochs"]
    model = load_model(folder / "qat" / STUDENT_NAME, LoadOptions()).model
    facts = {"parameters": sum(each.numel() for each in model.parameters()), "qat": dict(record.facts)}
    compared = int8_compared(folder / "qat" / CALIBRATED_FOLDER, model)
    return Learned(compared, tuple(EpochRecord(**epoch) for epoch in epochs), facts)


def int8_compared(calibrated: Path, layers: nn.Module) -> Compared:
    """The engine of a calibrated graph, with float weights for the relevance methods."""
    engine = ENGINES.load(_ENGINE)
    artifact = calibrated / "engine"
    engine.build(calibrated / MODEL_NAME, artifact)
    runner = engine.open(artifact, EngineOptions(threads=1))
    artifact.unlink()
    return Compared(_Engine(runner), _explaining(runner), layers.eval().requires_grad_(False))


class _Engine(nn.Module):
    """An engine's answers."""

    def __init__(self, runner: Runner) -> None:
        super().__init__()
        self._runner = runner

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[N, 3, H, W] to logits [N, K]."""
        own = np.full(len(x), -1, dtype=np.int32)
        return torch.from_numpy(self._runner.run(x.cpu().numpy(), own).logits).to(x.device)


def _explaining(runner: Runner) -> Callable[[torch.Tensor, npt.NDArray[np.int64]], npt.NDArray[np.float32]]:
    def explaining(images: torch.Tensor, classes: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        return runner.run(images.cpu().numpy(), classes.astype(np.int32)).attribution

    return explaining
