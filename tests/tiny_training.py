"""A teacher of a few hundred weights in a checkpoint, and labelled noise to train its students on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from labelled_images import Images
from torch import nn

from edgekit.interface.card import InputSpec, ModelCard
from edgekit.teacher.architectures.registry import ARCHITECTURES
from edgekit.teacher.checkpoint import LoadedModel, save_checkpoint

ARCH = "cifar_resnet"
ARGUMENTS: dict[str, Any] = {"depth": 8, "classes": 3, "widths": [6, 8, 10], "shortcut": "A"}
CARD = ModelCard(InputSpec(16, 16, std=(0.25, 0.25, 0.25)), ("a", "b", "c"))


def images(count: int = 40, seed: int = 0) -> Images:
    source = np.random.default_rng(seed)
    return Images(source.integers(0, 256, (count, 16, 16, 3)).astype(np.uint8), source.integers(0, 3, count))


def probe() -> torch.Tensor:
    return torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def teacher_network(**arguments: Any) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(4)
        model: nn.Module = ARCHITECTURES.load(ARCH)(**{**ARGUMENTS, **arguments}).eval()
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.uniform_(module.weight, 0.5, 1.5)
                nn.init.normal_(module.bias, 0.1, 0.2)
    return model


def write_teacher(path: Path, card: ModelCard = CARD, **arguments: Any) -> Path:
    said = {**ARGUMENTS, **arguments}
    save_checkpoint(path, LoadedModel(teacher_network(**arguments), card, ARCH, said, None, ""))
    return path
