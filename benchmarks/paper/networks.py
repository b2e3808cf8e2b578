"""The compared networks: two with published weights, and a small VGG-like one whose head flattens its last map."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from prepare_data import card_of
from torch import nn

from edgekit.interface.card import InputSpec, ModelCard
from edgekit.teacher.architectures.construct import construct
from edgekit.teacher.load_options import LoadOptions
from edgekit.teacher.loading import load_model
from edgekit.teacher.tap import Tap

__all__ = ["NETWORKS", "FlatNet", "Network", "flat_net"]


@dataclass(frozen=True)
class Network:
    """An architecture with the place its map lives on.

    Attributes:
        arch: Name or factory, as edgekit constructs it.
        arguments: Of the whole network; `classes` is added.
        narrow: Of the student of distillation: half the width of every layer.
        weights: Name of the published weights a teacher starts from; empty for random ones.
        side: Input height and width.
        tap: Module of the matched and explained map.
        head: Module of the last linear layer.
    """

    arch: str
    arguments: Mapping[str, Any]
    narrow: Mapping[str, Any]
    weights: str
    side: int
    tap: str
    head: str
    sides: Mapping[str, int] = field(default_factory=dict)

    def side_for(self, dataset: str) -> int:
        """Input side for a data set: `sides` has the exceptions."""
        return self.sides.get(dataset, self.side)

    def card(self, dataset: str, classes: Sequence[str], shared: Path) -> ModelCard:
        """Classes and input; the normalisation is that of the published weights."""
        given = card_of(shared, self.weights or "cifar10-resnet20")["input"]
        side = self.side_for(dataset)
        spec = InputSpec(side, side, given["channel_order"], given["divisor"], given["mean"], given["std"])
        return ModelCard(spec, tuple(classes), tap=self.tap)

    @property
    def matched(self) -> Tap:
        """The tap."""
        return Tap(self.tap)

    def random(self, classes: int, seed: int, *, narrow: bool = False) -> nn.Module:
        """With random weights that follow from the seed, in evaluation mode."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = construct(self.arch, {**(self.narrow if narrow else self.arguments), "classes": classes})
        return model.eval()

    def pretrained(self, classes: Sequence[str], seed: int, shared: Path) -> nn.Module:
        """With the published weights below a new head, which follows from the seed.

        The published head stays where its classes are the same.
        """
        if not self.weights:
            return self.random(len(classes), seed)
        card = card_of(shared, self.weights)
        options = LoadOptions(arch=self.arch, arguments=dict(self.arguments), card=card)
        model = load_model(shared / "models" / f"{self.weights}.safetensors", options).model
        if tuple(card["classes"]) != tuple(classes):
            former = model.get_submodule(self.head)
            assert isinstance(former, nn.Linear)
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                setattr(model, self.head, nn.Linear(former.in_features, len(classes)))
        return model.eval()


class FlatNet(nn.Module):
    """Convolutions as in VGG (Simonyan and Zisserman 2015) with batch norm, three poolings, and one linear layer.

    The head is the released code's: the last pooled map, flattened, into one linear layer. The tap is `pool`.
    """

    def __init__(self, classes: int, width: float, side: int) -> None:
        super().__init__()
        first, second, third = (round(channels * width) for channels in (16, 32, 64))
        self.features = nn.Sequential(
            *_convolution(3, first),
            nn.MaxPool2d(2),
            *_convolution(first, second),
            nn.MaxPool2d(2),
            *_convolution(second, third),
            *_convolution(third, third),
        )
        self.pool = nn.MaxPool2d(2)
        self.head = nn.Linear(third * (side // 8) ** 2, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Float [N, 3, side, side] to logits [N, classes]."""
        logits: torch.Tensor = self.head(self.pool(self.features(x)).flatten(1))
        return logits


def _convolution(inputs: int, outputs: int) -> tuple[nn.Module, ...]:
    return nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()


def flat_net(classes: int = 10, width: float = 1.0, side: int = 40) -> FlatNet:
    """The factory of `FlatNet`."""
    return FlatNet(classes, width, side)


NETWORKS: Mapping[str, Network] = MappingProxyType(
    {
        "resnet20": Network(
            arch="cifar_resnet",
            arguments={"depth": 20},
            narrow={"depth": 20, "widths": (8, 16, 32)},
            weights="cifar10-resnet20",
            side=40,
            tap="layer3",
            head="linear",
            sides={"cifar10": 32},
        ),
        "mobilenet": Network(
            arch="mobilenet_v1",
            arguments={"width": 0.25},
            narrow={"width": 0.125},
            weights="person-mobilenetv1-96",
            # 4 x 4 cells: at the weights' own 96 pixels the last map has nine.
            side=128,
            tap="blocks.12",
            head="fc",
        ),
        "flat": Network(
            arch="paper.networks:flat_net",
            arguments={},
            narrow={"width": 0.5},
            weights="",
            side=40,
            tap="pool",
            head="head",
        ),
    }
)
