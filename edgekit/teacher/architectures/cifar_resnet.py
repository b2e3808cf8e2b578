"""Residual networks for small images, with either of the shortcuts that fit them.

He et al., "Deep Residual Learning for Image Recognition", CVPR 2016, section 4.2; shortcuts A and B of section 4.1.
Tensor names are those of github.com/akamaster/pytorch_resnet_cifar10, so its published weights load as they are.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import nn

from edgekit.errors import BadInputError

__all__ = ["SHORTCUTS", "BasicBlock", "ChannelPlacement", "CifarResNet", "cifar_resnet"]

SHORTCUTS = ("A", "B")


class ChannelPlacement(nn.Conv2d):
    """Shortcut A: every `stride`-th row and column, the channels placed in the middle of zeros; nothing to train.

    It is the paper's subsampling and zero padding, bit for bit, written as a 1x1 convolution with a fixed 0/1
    weight. Slicing and padding would say the same until channels are removed: a dependency graph sees no channel
    offset in a padding, while it knows how to cut the rows and columns of a convolution.

    The weight is a buffer that is not stored, since published weights have no such tensor. Pruning turns it into a
    parameter, which is stored; it is detached in the forward pass, so that no optimiser ever moves it.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__(in_channels, out_channels, kernel_size=1, stride=stride, bias=False)
        del self.weight
        placement = torch.zeros(out_channels, in_channels, 1, 1)
        channels = torch.arange(in_channels)
        placement[channels + (out_channels - in_channels) // 2, channels] = 1.0
        self.register_buffer("weight", placement, persistent=False)

    def forward(self, input: torch.Tensor) -> torch.Tensor:  # noqa: A002 - the base class's name
        """[N, in, H, W] to [N, out, ceil(H / stride), ceil(W / stride)]."""
        placed: torch.Tensor = self._conv_forward(input, self.weight.detach(), None)
        return placed


class BasicBlock(nn.Module):
    """`relu(bn2(conv2(relu(bn1(conv1(x))))) + shortcut(x))` with 3x3 convolutions without bias."""

    def __init__(self, in_channels: int, channels: int, stride: int, shortcut: str) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.shortcut: nn.Module
        if stride == 1 and in_channels == channels:
            self.shortcut = nn.Identity()
        elif shortcut == "A":
            self.shortcut = ChannelPlacement(in_channels, channels, stride)
        else:
            self.shortcut = nn.Sequential(
                nn.Conv2d(in_channels, channels, 1, stride=stride, bias=False), nn.BatchNorm2d(channels)
            )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[N, in, H, W] to [N, channels, ceil(H / stride), ceil(W / stride)]."""
        y = torch.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        return torch.relu(y + self.shortcut(x))


class CifarResNet(nn.Module):
    """Stem, three stages of basic blocks, global average pool, linear. The map's tap is `layer3`."""

    def __init__(self, blocks: int, classes: int, widths: Sequence[int], stem_stride: int, shortcut: str) -> None:
        super().__init__()
        first, second, third = widths
        self.conv1 = nn.Conv2d(3, first, 3, stride=stem_stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(first)
        self.layer1 = _stage(blocks, first, first, 1, shortcut)
        self.layer2 = _stage(blocks, first, second, 2, shortcut)
        self.layer3 = _stage(blocks, second, third, 2, shortcut)
        self.linear = nn.Linear(third, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Float [N, 3, H, W] to logits [N, classes]."""
        x = torch.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        logits: torch.Tensor = self.linear(x.mean(dim=(2, 3)))
        return logits


def _stage(blocks: int, in_channels: int, channels: int, stride: int, shortcut: str) -> nn.Sequential:
    first = BasicBlock(in_channels, channels, stride, shortcut)
    return nn.Sequential(first, *(BasicBlock(channels, channels, 1, shortcut) for _ in range(blocks - 1)))


def cifar_resnet(
    depth: int = 20,
    classes: int = 10,
    widths: Sequence[int] = (16, 32, 64),
    stem_stride: int = 1,
    shortcut: str = "A",
    width: float = 1.0,
) -> CifarResNet:
    """A residual network of `depth` = 6 n + 2 layers.

    Args:
        depth: 8, 14, 20, 32, 44, 56 and so on: n basic blocks in each of the three stages.
        classes: Number of logits.
        widths: Channels of the three stages.
        stem_stride: Stride of the first convolution; 2 for inputs larger than CIFAR's.
        shortcut: Where the shape changes: "A" subsamples and pads channels with zeros, half before and half after;
            "B" projects with a 1x1 convolution and batch norm.
        width: Multiplier of `widths`, above 0; what comes out is rounded, and at least 1.

    Raises:
        BadInputError: An argument is outside what the family knows.
    """
    problem = None
    if depth < 8 or (depth - 2) % 6:
        problem = ("a depth of 6 n + 2: 8, 14, 20, 32, 44, 56, 110", str(depth))
    elif shortcut not in SHORTCUTS:
        problem = ("shortcut " + " or ".join(SHORTCUTS), repr(shortcut))
    elif len(widths) != 3 or not 0 < widths[0] <= widths[1] <= widths[2]:
        problem = ("three widths, none smaller than the one before", str(tuple(widths)))
    elif classes < 2 or stem_stride < 1:
        problem = ("at least two classes and a stem stride of at least 1", f"{classes} and {stem_stride}")
    elif not 0 < width < math.inf:
        problem = ("a width above 0", str(width))
    if problem is not None:
        raise BadInputError("cifar_resnet cannot be built.", expected=problem[0], found=problem[1])
    scaled = [max(1, round(channels * width)) for channels in widths]
    return CifarResNet((depth - 2) // 6, classes, scaled, stem_stride, shortcut)
