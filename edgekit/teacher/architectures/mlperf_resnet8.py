"""The residual network of MLPerf Tiny's image classification reference (github.com/mlcommons/tiny).

Its weights come from Keras: convolutions have biases, padding is TensorFlow's, the shortcuts have no batch norm, and
the input is raw 0..255.
"""

from __future__ import annotations

import math

import torch
from torch import nn

from edgekit.errors import BadInputError
from edgekit.teacher.architectures.tf_padding import ConvBn

__all__ = ["MlperfResNet8", "mlperf_resnet8"]

# Channels of the three stages at width 1.
_WIDTHS = (16, 32, 64)


class _Projection(nn.Module):
    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, 1, stride=2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.conv(x)
        return y


class MlperfResNet8(nn.Module):
    """Stem, three residual stages of one block each, global average pool, linear. The map's tap is `stage3`."""

    def __init__(self, classes: int, width: float = 1.0) -> None:
        super().__init__()
        first, second, third = (max(1, round(channels * width)) for channels in _WIDTHS)
        self.stem = ConvBn(3, first, 3)
        self.s1a, self.s1b = ConvBn(first, first, 3), ConvBn(first, first, 3)
        self.s2a, self.s2b = ConvBn(first, second, 3, stride=2), ConvBn(second, second, 3)
        self.s2s = _Projection(first, second)
        self.s3a, self.s3b = ConvBn(second, third, 3, stride=2), ConvBn(third, third, 3)
        self.s3s = _Projection(second, third)
        # The stages of the reference are nameless sums; the last one gets a module so that a map can live on it.
        self.stage3 = nn.ReLU()
        self.fc = nn.Linear(third, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Float [N, 3, H, W], H and W multiples of 4, raw 0..255, to logits [N, classes]."""
        x = torch.relu(self.stem(x))
        x = torch.relu(x + self.s1b(torch.relu(self.s1a(x))))
        x = torch.relu(self.s2s(x) + self.s2b(torch.relu(self.s2a(x))))
        x = self.stage3(self.s3s(x) + self.s3b(torch.relu(self.s3a(x))))
        logits: torch.Tensor = self.fc(x.mean(dim=(2, 3)))
        return logits


def mlperf_resnet8(classes: int = 10, width: float = 1.0) -> MlperfResNet8:
    """MLPerf Tiny's ResNet-8 for 32x32 images.

    Args:
        classes: Number of logits.
        width: Multiplier of every layer's channels (16, 32 and 64 at 1, the reference), above 0; what comes out is
            rounded, and at least 1.

    Raises:
        BadInputError: There are fewer than two classes, or `width` is not above 0.
    """
    if classes < 2 or not 0 < width < math.inf:
        raise BadInputError(
            "mlperf_resnet8 cannot be built.",
            expected="at least two classes and a width above 0",
            found=f"{classes} classes, width {width}",
        )
    return MlperfResNet8(classes, width)
