"""Small pictures, a small network and plans for training it: what the tests of training share."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from labelled_images import Images
from torch import nn

from edgekit.compress.options import FinetuneOptions, MatchingOptions
from edgekit.compress.training.plan import Constraint, TrainPlan
from edgekit.core.progress import NullObserver
from edgekit.interface.card import InputSpec, ModelCard
from edgekit.teacher.tap import Tap

SIDE = 16
CARD = ModelCard(InputSpec(SIDE, SIDE, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25)), ("disc", "cross", "bars"))


def drawn_images(count: int, seed: int) -> Images:
    """A small figure somewhere on noise; which figure is the class."""
    source = np.random.default_rng(seed)
    figures = np.zeros((3, 5, 5), dtype=bool)
    y, x = np.mgrid[-2:3, -2:3]
    figures[0], figures[1], figures[2] = x**2 + y**2 <= 5, (x == 0) | (y == 0), x % 2 == 0
    pixels = source.integers(60, 160, (count, SIDE, SIDE, 3))
    labels = source.integers(0, 3, count)
    for image, label in zip(pixels, labels, strict=True):
        top, left = source.integers(0, SIDE - 5, 2)
        image[top : top + 5, left : left + 5][figures[label]] += source.integers(40, 95)
    return Images(pixels.astype(np.uint8), labels)


class Net(nn.Module):
    def __init__(self, seed: int = 0, classes: int = 3, dropout: float = 0.0) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.features = nn.Sequential(
                nn.Conv2d(3, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU(inplace=True), nn.MaxPool2d(2),
                nn.Conv2d(16, 24, 3, padding=1, bias=False), nn.BatchNorm2d(24), nn.ReLU(inplace=True),
                nn.Conv2d(24, 24, 3, padding=1, bias=False), nn.BatchNorm2d(24), nn.ReLU(inplace=True),
            )  # fmt: skip
            self.dropout, self.fc = nn.Dropout(dropout), nn.Linear(24, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.dropout(self.features(x).mean(dim=(2, 3))))


def plan(
    loss: str = "swa",
    *,
    beta: float = 100.0,
    seed: int = 0,
    tap: str = "features",
    constraints: tuple[Constraint, ...] = (),
    card: ModelCard = CARD,
    **finetune_options: Any,
) -> TrainPlan:
    options = {"epochs": 1, "batch_size": 16, "flip": True, "shift": 1, **finetune_options}
    return TrainPlan(
        card,
        (Tap(tap),),
        FinetuneOptions(**options),
        MatchingOptions(loss=loss, beta=beta),
        constraints=constraints,
        seed=seed,
        threads=1,
    )


def weights_of(model: nn.Module) -> bytes:
    return b"".join(value.numpy().tobytes() for value in model.state_dict().values())


class Recorder(NullObserver):
    """Keeps what it is told; stops like Ctrl-C once `stop_after` steps are done."""

    def __init__(self, stop_after: int | None = None) -> None:
        self.steps: list[tuple[int, int | None, str]] = []
        self.notes: list[str] = []
        self._stop_after = stop_after

    def advanced(self, task: str, done: int, total: int | None, detail: str = "") -> None:
        self.steps.append((done, total, detail))
        if done == self._stop_after:
            raise KeyboardInterrupt

    def noted(self, message: str) -> None:
        self.notes.append(message)
