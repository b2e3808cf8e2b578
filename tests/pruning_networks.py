"""Tiny networks with every kind of wiring that channels are pruned through, and one that no pruning can follow."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional

SHAPE = (3, 12, 12)


class ConvBn(nn.Sequential):
    def __init__(self, inputs: int, outputs: int, kernel: int = 3, stride: int = 1, groups: int = 1) -> None:
        super().__init__(
            nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False),
            nn.BatchNorm2d(outputs),
        )


class VggLike(nn.Module):
    """Flattens 6 x 6 cells: the head's columns are channel * 36 + position."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(inplace=True), ConvBn(8, 10), nn.ReLU(), nn.MaxPool2d(2)
        )
        self.classifier = nn.Sequential(nn.Linear(10 * 36, 14), nn.ReLU(), nn.Dropout(), nn.Linear(14, 5))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.classifier(torch.flatten(self.features(x), 1))


class ResidualLike(nn.Module):
    """One identity shortcut and one projection."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = ConvBn(3, 8)
        self.a1, self.a2 = ConvBn(8, 12), ConvBn(12, 8)
        self.b1, self.b2, self.projection = ConvBn(8, 12, stride=2), ConvBn(12, 16), ConvBn(8, 16, 1, stride=2)
        self.fc = nn.Linear(16, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.stem(x))
        x = torch.relu(x + self.a2(torch.relu(self.a1(x))))
        x = torch.relu(self.projection(x) + self.b2(torch.relu(self.b1(x))))
        return self.fc(x.mean(dim=(2, 3)))


class MobileLike(nn.Module):
    """Inverted bottleneck with a depthwise convolution, squeeze-and-excitation and a residual."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = ConvBn(3, 8, stride=2)
        self.expand, self.depthwise, self.project = ConvBn(8, 24, 1), ConvBn(24, 24, groups=24), ConvBn(24, 8, 1)
        self.squeeze, self.excite = nn.Conv2d(24, 6, 1), nn.Conv2d(6, 24, 1)
        self.fc = nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = functional.hardswish(self.stem(x))
        y = functional.hardswish(self.depthwise(functional.hardswish(self.expand(x))))
        gate = torch.sigmoid(self.excite(torch.relu(self.squeeze(y.mean(dim=(2, 3), keepdim=True)))))
        x = x + self.project(y * gate)
        return self.fc(functional.adaptive_avg_pool2d(x, 1).flatten(1))


class ConcatLike(nn.Module):
    """Two branches and the input of both, side by side, as in dense networks."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.left, self.right = ConvBn(3, 6), ConvBn(6, 8), ConvBn(6, 10, 1)
        self.norm, self.mix, self.fc = nn.BatchNorm2d(24), nn.Conv2d(24, 9, 1), nn.Linear(9 * 4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.stem(x))
        x = torch.cat([torch.relu(self.left(x)), x, torch.relu(self.right(x))], dim=1)
        x = torch.relu(self.mix(torch.relu(self.norm(x))))
        return self.fc(functional.adaptive_max_pool2d(x, 2).flatten(1))


class GroupedLike(nn.Module):
    """A grouped convolution, as in ResNeXt, and a transposed one."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.grouped = ConvBn(3, 12, stride=2), ConvBn(12, 12, groups=3)
        self.up, self.last, self.fc = nn.ConvTranspose2d(12, 8, 2, 2), ConvBn(8, 6), nn.Linear(6, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.grouped(torch.relu(self.first(x))))
        return self.fc(torch.relu(self.last(torch.relu(self.up(x)))).mean(dim=(2, 3)))


class DenseLike(nn.Module):
    """Two dense layers as in DenseNet: norms come before convolutions, and a channel meets several of them."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.norm1, self.conv1 = nn.BatchNorm2d(8), nn.Conv2d(8, 12, 3, padding=1, bias=False)
        self.norm2, self.conv2 = nn.BatchNorm2d(20), nn.Conv2d(20, 8, 3, padding=1, bias=False)
        self.norm, self.fc = nn.BatchNorm2d(28), nn.Linear(28, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        x = torch.cat([x, self.conv1(torch.relu(self.norm1(x)))], dim=1)
        x = torch.cat([x, self.conv2(torch.relu(self.norm2(x)))], dim=1)
        return self.fc(torch.relu(self.norm(x)).mean(dim=(2, 3)))


class SharedLike(nn.Module):
    """One block is used twice, under two names."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.block, self.last = ConvBn(3, 8), ConvBn(8, 8), ConvBn(8, 12)
        self.again, self.fc = self.block, nn.Linear(12, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.block(torch.relu(self.stem(x))))
        return self.fc(torch.relu(self.last(torch.relu(self.again(x)))).mean(dim=(2, 3)))


class PaddedShortcut(nn.Module):
    """Shortcut A of He et al. by slicing and padding: channel i of the first stage becomes channel i + 4."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.inner, self.outer = ConvBn(3, 8), ConvBn(8, 16, stride=2), ConvBn(16, 16)
        self.last, self.fc = ConvBn(16, 8), nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.stem(x))
        shortcut = functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 4, 4))
        x = torch.relu(self.outer(torch.relu(self.inner(x))) + shortcut)
        return self.fc(torch.relu(self.last(x)).mean(dim=(2, 3)))


class Shuffled(nn.Module):
    """A channel shuffle, which no dependency graph of channel indices follows."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.fc = ConvBn(3, 8), ConvBn(8, 8), nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.first(x))
        x = x.reshape(len(x), 2, -1, *x.shape[2:]).transpose(1, 2).flatten(1, 2)
        return self.fc(torch.relu(self.second(x)).mean(dim=(2, 3)))


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "vgg": VggLike,
    "residual": ResidualLike,
    "mobile": MobileLike,
    "concat": ConcatLike,
    "grouped": GroupedLike,
    "dense": DenseLike,
    "shared": SharedLike,
}


def made(factory: Callable[[], nn.Module], seed: int = 3) -> nn.Module:
    """A network with weights and statistics that differ from channel to channel."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = factory()
        with torch.no_grad():
            for module in model.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.weight.uniform_(0.5, 1.5)
                    module.bias.normal_(0, 0.2)
                    module.running_mean.normal_(0, 0.2)
                    module.running_var.uniform_(0.5, 1.5)
    return model.eval().requires_grad_(False)


def images(count: int = 3, shape: tuple[int, int, int] = SHAPE, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(count, *shape, generator=torch.Generator().manual_seed(1), dtype=dtype)
