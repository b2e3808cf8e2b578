"""MobileNet v1 (Howard et al., arXiv 1704.04861) as in MLPerf Tiny's visual wake words reference.

Tensor names are `stem.conv`, `blocks.<i>.dw.conv`, `blocks.<i>.pw.conv` with `.bn` beside each, and `fc`; padding and
batch norm follow Keras, where the reference weights come from (github.com/mlcommons/tiny).
"""

from __future__ import annotations

import torch
from torch import nn

from edgekit.errors import BadInputError
from edgekit.teacher.architectures.tf_padding import ConvBn

__all__ = ["MobileNetV1", "SeparableBlock", "mobilenet_v1"]

# Output channels at width 1 and stride of each block.
_BLOCKS = (
    (64, 1),
    (128, 2),
    (128, 1),
    (256, 2),
    (256, 1),
    (512, 2),
    (512, 1),
    (512, 1),
    (512, 1),
    (512, 1),
    (512, 1),
    (1024, 2),
    (1024, 1),
)
_STEM = 32


class SeparableBlock(nn.Module):
    """`relu(pw(relu(dw(x))))`: 3x3 depthwise, then 1x1."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.dw = ConvBn(in_channels, in_channels, 3, stride, groups=in_channels)
        self.pw = ConvBn(in_channels, out_channels, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[N, in, H, W] to [N, out, H / stride, W / stride]."""
        return torch.relu(self.pw(torch.relu(self.dw(x))))


class MobileNetV1(nn.Module):
    """Stem, thirteen separable blocks, global average pool, linear. The map's tap is `blocks.12`."""

    def __init__(self, classes: int, width: float) -> None:
        super().__init__()
        channels = int(_STEM * width)
        self.stem = ConvBn(3, channels, 3, stride=2)
        blocks = []
        for full_channels, stride in _BLOCKS:
            blocks.append(SeparableBlock(channels, int(full_channels * width), stride))
            channels = int(full_channels * width)
        self.blocks = nn.Sequential(*blocks)
        self.fc = nn.Linear(channels, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Float [N, 3, H, W], H and W multiples of 32, to logits [N, classes]."""
        x = self.blocks(torch.relu(self.stem(x)))
        logits: torch.Tensor = self.fc(x.mean(dim=(2, 3)))
        return logits


def mobilenet_v1(classes: int = 2, width: float = 0.25) -> MobileNetV1:
    """MobileNet v1.

    Args:
        classes: Number of logits.
        width: Multiplier of every layer's channels; 0.25 is the visual wake words reference.

    Raises:
        BadInputError: `width` leaves a layer without channels, or there are fewer than two classes.
    """
    if classes < 2 or not 1 / _STEM <= width <= 4:
        raise BadInputError(
            "mobilenet_v1 cannot be built.",
            expected="at least two classes and a width from 1/32 to 4",
            found=f"{classes} classes, width {width}",
        )
    return MobileNetV1(classes, width)
