"""Two small networks of the mobile kind for 32-pixel images: what ResNets do not have and phones do.

`inverted` is made like MobileNetV2 (Sandler et al. 2018): inverted residuals, depthwise convolutions, ReLU6, linear
bottlenecks. `excited` is made like MobileNetV3 (Howard et al. 2019): hard-swish, squeeze-and-excitation with
hard-sigmoid, and a head with a hidden layer, so that its map needs a traced gradient.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

__all__ = ["Excited", "Inverted", "MobileNet", "excited", "inverted"]

_Activation = Callable[[], nn.Module]


@dataclass(frozen=True)
class _Block:
    """One inverted residual: expansion, output channels, kernel, stride."""

    expansion: int
    channels: int
    kernel: int
    stride: int


_INVERTED = (_Block(1, 24, 3, 1), _Block(4, 24, 3, 1), _Block(4, 40, 3, 2), _Block(4, 40, 3, 1), _Block(4, 64, 3, 1))
_EXCITED = (_Block(1, 24, 3, 1), _Block(3, 24, 3, 1), _Block(4, 40, 5, 2), _Block(3, 40, 5, 1), _Block(4, 56, 3, 1))
_STEM, _LAST, _HIDDEN = 16, 160, 64


def _convolution(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
    return [conv, nn.BatchNorm2d(outputs)]


class SqueezeExcite(nn.Module):
    """Channels weighted by what the whole map holds (Hu et al. 2018), with hard-sigmoid."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.squeeze = nn.Conv2d(channels, max(8, channels // 4), 1)
        self.excite = nn.Conv2d(max(8, channels // 4), channels, 1)
        self.relu, self.gate = nn.ReLU(), nn.Hardsigmoid()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[N, C, H, W] to the same."""
        weighted: torch.Tensor = x * self.gate(self.excite(self.relu(self.squeeze(self.pool(x)))))
        return weighted


class InvertedResidual(nn.Module):
    """1x1 up unless the expansion is 1, depthwise, 1x1 down without activation; with a shortcut where shapes allow."""

    def __init__(self, inputs: int, block: _Block, activation: _Activation, *, excite: bool) -> None:
        super().__init__()
        wide = inputs * block.expansion
        layers = [*_convolution(inputs, wide, 1), activation()] if block.expansion > 1 else []
        layers += [*_convolution(wide, wide, block.kernel, block.stride, wide), activation()]
        layers += [SqueezeExcite(wide)] if excite else []
        self.layers = nn.Sequential(*layers, *_convolution(wide, block.channels, 1))
        self.residual = block.stride == 1 and inputs == block.channels

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[N, inputs, H, W] to [N, channels, H / stride, W / stride]."""
        y: torch.Tensor = self.layers(x)
        return x + y if self.residual else y


class MobileNet(nn.Module):
    """Stem, inverted residuals, a wide 1x1 convolution (`last`, the tap), average pool, head."""

    def __init__(self, blocks: tuple[_Block, ...], activation: _Activation, head: nn.Module, *, excite: bool) -> None:
        super().__init__()
        self.stem = nn.Sequential(*_convolution(3, _STEM, 3, 2), activation())
        inputs = [_STEM, *(block.channels for block in blocks)]
        self.blocks = nn.Sequential(
            *(
                InvertedResidual(channels, block, activation, excite=excite)
                for channels, block in zip(inputs[:-1], blocks, strict=True)
            )
        )
        self.last = nn.Sequential(*_convolution(inputs[-1], _LAST, 1), activation())
        self.head = head

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Float [N, 3, H, W], H and W multiples of 4, to logits [N, classes]."""
        logits: torch.Tensor = self.head(self.last(self.blocks(self.stem(x))).mean(dim=(2, 3)))
        return logits


class Inverted(MobileNet):
    """MobileNetV2's parts."""


class Excited(MobileNet):
    """MobileNetV3's parts."""


def inverted(classes: int = 10) -> Inverted:
    """The factory of the network made like MobileNetV2."""
    return Inverted(_INVERTED, nn.ReLU6, nn.Linear(_LAST, classes), excite=False)


def excited(classes: int = 10) -> Excited:
    """The factory of the network made like MobileNetV3."""
    head = nn.Sequential(nn.Linear(_LAST, _HIDDEN), nn.Hardswish(), nn.Linear(_HIDDEN, classes))
    return Excited(_EXCITED, nn.Hardswish, head, excite=True)
