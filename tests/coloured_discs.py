"""Images whose class is the colour of a disc among squares of other colours, and small networks that learn it.

The demo's network looks at shapes and hardly minds colours; what is done to colours needs networks that do.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from edgekit.interface.card import InputSpec, ModelCard
from edgekit.interface.preprocess import preprocess

SIDE = 32
COLOURS = {"red": (220, 40, 40), "green": (40, 190, 60), "blue": (40, 60, 220)}
CARD = ModelCard(InputSpec(SIDE, SIDE, mean=(0.45, 0.5, 0.4), std=(0.25, 0.2, 0.3)), tuple(COLOURS), tap="layer3")


def drawn(count: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pixels, labels and masks of discs on grey noise, beside a square of another colour."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % len(COLOURS)
    paints = np.array(list(COLOURS.values()), dtype=np.float64)
    pixels = rng.normal(120, 25, size=(count, SIDE, SIDE, 3))
    masks = np.zeros((count, SIDE, SIDE), dtype=np.bool_)
    rows, columns = np.mgrid[:SIDE, :SIDE]
    for index, label in enumerate(labels):
        y, x = rng.integers(0, SIDE - 4, size=2)
        pixels[index, y : y + 4, x : x + 4] = paints[(label + rng.integers(1, 3)) % 3] + rng.normal(0, 10, size=3)
        y, x = rng.integers(7, SIDE - 7, size=2)
        masks[index] = (rows - y) ** 2 + (columns - x) ** 2 <= 30
        pixels[index][masks[index]] = paints[label] + rng.normal(0, 10, size=3)
    return np.clip(pixels, 0, 255).astype(np.uint8), labels.astype(np.int64), masks


def train(model: nn.Module, card: ModelCard, pixels: np.ndarray, labels: np.ndarray, epochs: int, lr: float) -> None:
    """Train in place, from torch's generator as it stands, and leave the network in evaluation mode."""
    model.train().requires_grad_(True)
    optimiser = torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9, weight_decay=1e-4)
    images, classes = torch.from_numpy(preprocess(pixels, card.input)), torch.from_numpy(labels)
    for _ in range(epochs):
        for chosen in torch.randperm(len(images)).split(32):
            loss = nn.functional.cross_entropy(model(images[chosen]), classes[chosen])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    model.eval().requires_grad_(False)
