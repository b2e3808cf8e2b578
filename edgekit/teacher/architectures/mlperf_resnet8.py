"""The residual network of MLPerf Tiny's image classification reference (github.com/mlcommons/tiny).

Its weights come from Keras: convolutions have biases, padding is TensorFlow's, the shortcuts have no batch norm, and
the input is raw 0..255.
"""

from __future__ import annotations

import torch
from torch import nn

from edgekit.errors import BadInputError
from edgekit.teacher.architectures.tf_padding import ConvBn

__all__ = ["MlperfResNet8", "mlperf_resnet8"]


class _Projection(nn.Module):
    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, 1, stride=2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.conv(x)
        return y


class MlperfResNet8(nn.Module):
    """Stem, three residual stages of one block each, global average pool, linear. The map's tap is `stage3`."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.stem = ConvBn(3, 16, 3)
        self.s1a, self.s1b = ConvBn(16, 16, 3), ConvBn(16, 16, 3)
        self.s2a, self.s2b, self.s2s = ConvBn(16, 32, 3, stride=2), ConvBn(32, 32, 3), _Projection(16, 32)
        self.s3a, self.s3b, self.s3s = ConvBn(32, 64, 3, stride=2), ConvBn(64, 64, 3), _Projection(32, 64)
        # The stages of the reference are nameless sums; the last one gets a module so that a map can live on it.
        self.stage3 = nn.ReLU()
        self.fc = nn.Linear(64, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Float [N, 3, H, W], H and W multiples of 4, raw 0..255, to logits [N, classes]."""
        x = torch.relu(self.stem(x))
        x = torch.relu(x + self.s1b(torch.relu(self.s1a(x))))
        x = torch.relu(self.s2s(x) + self.s2b(torch.relu(self.s2a(x))))
        x = self.stage3(self.s3s(x) + self.s3b(torch.relu(self.s3a(x))))
        logits: torch.Tensor = self.fc(x.mean(dim=(2, 3)))
        return logits


def mlperf_resnet8(classes: int = 10) -> MlperfResNet8:
    """MLPerf Tiny's ResNet-8 for 32x32 images. Raises `BadInputError` for fewer than two classes."""
    if classes < 2:
        raise BadInputError("mlperf_resnet8 cannot be built.", expected="at least two classes", found=str(classes))
    return MlperfResNet8(classes)
