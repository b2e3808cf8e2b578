"""What a graph answers to the evaluation images: logits, the map of a class it is told, and that of its own class."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import numpy.typing as npt

from edgekit.attribution.spec import OWN_CLASS
from edgekit.engines.protocol import EngineOptions
from edgekit.engines.registry import ENGINES

__all__ = ["Answers", "engine_answers", "stored_answers"]

_BATCH = 64
_ENGINE = "ort-cpu"


@dataclass(frozen=True)
class Answers:
    """One graph's answers.

    Attributes:
        logits: float32 [N, classes].
        asked: float32 [N, h, w], maps of the reference's class.
        own: float32 [N, h, w], maps of the graph's own class.
    """

    logits: npt.NDArray[np.float32]
    asked: npt.NDArray[np.float32]
    own: npt.NDArray[np.float32]

    @property
    def classes(self) -> npt.NDArray[np.int64]:
        """Top-1, [N]."""
        return self.logits.argmax(axis=1)


def engine_answers(model: Path, images: npt.NDArray[np.float32], classes: npt.NDArray[np.int32] | None) -> Answers:
    """Answers of the engine that ships, ONNX Runtime with every optimisation on.

    Args:
        model: Explained graph, FP32 or with Q/DQ.
        images: float32 [N, 3, H, W].
        classes: int32 [N], what is explained; None for the graph's own.
    """
    engine = ENGINES.load(_ENGINE)
    own = np.full(len(images), OWN_CLASS, dtype=np.int32)
    parts = []
    with TemporaryDirectory() as temporary:
        artifact = Path(temporary) / "engine"
        engine.build(model, artifact)
        with engine.open(artifact, EngineOptions()) as runner:
            for start in range(0, len(images), _BATCH):
                chosen = slice(start, start + _BATCH)
                asked = None if classes is None else runner.run(images[chosen], classes[chosen])
                found = runner.run(images[chosen], own[chosen])
                parts.append((found.logits, (asked or found).attribution, found.attribution))
    logits, maps, own_maps = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    return Answers(logits, maps, own_maps)


def stored_answers(path: Path) -> Answers:
    """Answers that a worker wrote; see `workers/serving.py`."""
    with np.load(path) as stored:
        return Answers(stored["asked/logits"], stored["asked/attribution"], stored["own/attribution"])
