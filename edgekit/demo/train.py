"""Train the demo's classifier: `python -m edgekit.demo.train` rewrites the checkpoint that comes with edgekit.

Some five minutes on one quiet core. The same seed, machine and versions give the same weights.
"""

from __future__ import annotations

import argparse
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from edgekit.core.progress import NULL_OBSERVER, Observer, track
from edgekit.demo.images import CLASSES, SIDE, draw_image
from edgekit.demo.network import ARCH, demo_arguments, demo_card, teacher_path
from edgekit.interface.preprocess import preprocess
from edgekit.teacher.architectures.registry import ARCHITECTURES
from edgekit.teacher.checkpoint import LoadedModel, save_checkpoint

__all__ = ["TrainOptions", "accuracy", "draw_split", "main", "train"]


@dataclass(frozen=True)
class TrainOptions:
    """How the classifier is trained: SGD with Nesterov momentum and a cosine learning rate.

    Attributes:
        images: Training images, drawn once.
        epochs: Passes over them.
        batch_size: Images a step.
        learning_rate: At the peak, after one epoch of warm-up.
        weight_decay: L2 penalty.
        seed: Of images, weights and order. Not 0, the seed of the data sets that the demo writes.
    """

    images: int = 12000
    epochs: int = 12
    batch_size: int = 64
    learning_rate: float = 0.1
    weight_decay: float = 5e-4
    seed: int = 1


def draw_split(seed: int, split: str, count: int) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """The first `count` images of a split, uint8 [N, 64, 64, 3], and their labels, int64 [N]."""
    pixels = np.empty((count, SIDE, SIDE, 3), dtype=np.uint8)
    for index in range(count):
        pixels[index] = draw_image(seed, split, index).pixels
    return pixels, np.arange(count, dtype=np.int64) % len(CLASSES)


def train(options: TrainOptions, observer: Observer = NULL_OBSERVER) -> nn.Module:
    """Train from scratch and return the network in evaluation mode."""
    torch.manual_seed(options.seed)
    rng = np.random.default_rng(options.seed)
    pixels, labels = draw_split(options.seed, "broad", options.images)
    # Channels last: a third faster here, and stored like any other layout.
    model: nn.Module = ARCHITECTURES.load(ARCH)(**demo_arguments())
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimiser = torch.optim.SGD(
        model.parameters(),
        lr=options.learning_rate,
        momentum=0.9,
        weight_decay=options.weight_decay,
        nesterov=True,
    )
    batches = options.images // options.batch_size
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: _rate(step / batches, epochs=options.epochs))
    model.train()
    for _ in track(range(options.epochs), "epochs", observer):
        order = rng.permutation(options.images)[: batches * options.batch_size]
        for chosen in order.reshape(batches, options.batch_size):
            images = torch.from_numpy(_augmented(pixels[chosen], rng)).to(memory_format=torch.channels_last)
            loss = nn.functional.cross_entropy(model(images), torch.from_numpy(labels[chosen]))
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            schedule.step()
    return model.eval()


def _rate(epoch: float, epochs: int) -> float:
    """Share of the peak learning rate: one epoch of linear warm-up, then half a cosine down to zero."""
    if epoch < 1:
        return epoch
    return 0.5 * (1 + math.cos(math.pi * (epoch - 1) / max(1, epochs - 1)))


def _augmented(pixels: npt.NDArray[np.uint8], rng: np.random.Generator) -> npt.NDArray[np.float32]:
    """The batch in one of the square's eight symmetries; every object stays what it is under all of them."""
    if rng.random() < 0.5:
        pixels = pixels.transpose(0, 2, 1, 3)
    pixels = pixels[:, :: rng.choice((1, -1)), :: rng.choice((1, -1))]
    return preprocess(pixels, demo_card().input)


def accuracy(model: nn.Module, pixels: npt.NDArray[np.uint8], labels: npt.NDArray[np.int64]) -> float:
    """Share of images whose top-1 is the label."""
    hits = 0
    with torch.no_grad():
        for start in range(0, len(pixels), 256):
            images = torch.from_numpy(preprocess(pixels[start : start + 256], demo_card().input))
            hits += int((model(images).argmax(dim=1).numpy() == labels[start : start + 256]).sum())
    return hits / len(pixels)


class _Lines:
    """Progress as plain lines: this is a command, and commands may print."""

    def stage_started(self, stage: str) -> None:
        print(stage)

    def stage_finished(self, stage: str, *, skipped: bool, seconds: float, summary: str) -> None:
        print(f"{stage}: {summary} ({seconds:.0f} s{', skipped' if skipped else ''})")

    def advanced(self, task: str, done: int, total: int | None, detail: str = "") -> None:
        print(f"{task}: {done}/{total} {detail}".rstrip(), flush=True)

    def noted(self, message: str) -> None:
        print(message)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description="Train the demo's classifier.")
    parser.add_argument("--output", type=Path, default=teacher_path())
    parser.add_argument("--images", type=int, default=TrainOptions.images)
    parser.add_argument("--epochs", type=int, default=TrainOptions.epochs)
    parser.add_argument("--seed", type=int, default=TrainOptions.seed)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    options = TrainOptions(images=arguments.images, epochs=arguments.epochs, seed=arguments.seed)
    model = train(options, _Lines())
    loaded = LoadedModel(model, demo_card(), ARCH, demo_arguments(), None, "")
    digest = save_checkpoint(arguments.output, loaded)
    print(f"accuracy on 1200 validation images: {accuracy(model, *draw_split(0, 'val', 1200)):.3f}")
    print(f"{arguments.output}: sha256 {digest}")


if __name__ == "__main__":
    main()
