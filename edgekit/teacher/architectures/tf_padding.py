"""Convolutions that pad like TensorFlow's "same", for weights that were trained there."""

from __future__ import annotations

import torch
from torch import nn

__all__ = ["ConvBn"]


class ConvBn(nn.Module):
    """Convolution with bias, then batch norm with Keras's epsilon; the output has ceil(size / stride) cells.

    On inputs of even size, "same" pads a 3x3 convolution of stride 1 by one on every side, and one of stride 2 by
    nothing on the left and top and one on the right and bottom. The asymmetric case needs a padding of its own, as
    torch's convolutions pad evenly.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__()
        uneven = kernel > 1 and stride == 2
        self.pad = nn.ZeroPad2d((0, 1, 0, 1)) if uneven else nn.Identity()
        self.conv = nn.Conv2d(
            in_channels, out_channels, kernel, stride=stride, padding=0 if uneven else kernel // 2, groups=groups
        )
        self.bn = nn.BatchNorm2d(out_channels, eps=1e-3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[N, in, H, W] with even H and W (any for stride 1) to [N, out, H / stride, W / stride]."""
        y: torch.Tensor = self.bn(self.conv(self.pad(x)))
        return y
