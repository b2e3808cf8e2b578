"""Tiny networks for relevance propagation: wirings that `networks` does not have, and variants without any bias."""

from __future__ import annotations

from collections.abc import Callable

import torch
from networks import CASES, Case, made
from torch import nn
from torch.nn import functional

__all__ = ["RELU_NETWORKS", "WIRINGS", "Network", "without_biases"]

LOW, HIGH = (-4.5, -4.4, -4.6), (4.5, 4.7, 4.6)


class Grouped(nn.Module):
    """Grouped convolutions with a channel shuffle between them, as in ShuffleNet."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.first = nn.Sequential(nn.Conv2d(8, 8, 1, groups=4, bias=False), nn.BatchNorm2d(8), nn.ReLU())
        self.second = nn.Sequential(nn.Conv2d(8, 12, 3, padding=1, groups=2), nn.BatchNorm2d(12), nn.ReLU())
        self.fc = nn.Linear(12, 6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(functional.relu(self.stem(x)))
        batch, channels, height, width = x.shape
        x = x.view(batch, 4, channels // 4, height, width).transpose(1, 2).reshape(batch, channels, height, width)
        return self.fc(self.second(x).mean((2, 3)))


class SplitUnits(nn.Module):
    """Half of the channels pass by, the other half is transformed, and both are joined: ShuffleNet V2."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU())
        self.branch = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1, groups=4), nn.Conv2d(4, 4, 1), nn.ReLU())
        self.shuffle = nn.ChannelShuffle(2)
        self.fc = nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        kept, changed = self.stem(x).chunk(2, dim=1)
        x = self.shuffle(torch.cat([kept, self.branch(changed)], dim=1))
        return self.fc(functional.adaptive_avg_pool2d(x, 1).flatten(1))


class SqueezeExcited(nn.Module):
    """A gate made of a sigmoid, one of a clipped ramp, and a hand-written hard-swish, all as products."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU())
        self.squeeze = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(8, 2, 1), nn.ReLU(), nn.Conv2d(2, 8, 1))
        self.conv = nn.Conv2d(8, 8, 3, padding=1)
        self.last = nn.Conv2d(8, 8, 1)
        self.fc = nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        x = torch.sigmoid(self.squeeze(x)) * x
        x = self.conv(x)
        x = functional.relu(self.last(x * functional.relu6(x + 3) / 6))
        return self.fc(x.mean((2, 3)))


class AveragedStem(nn.Module):
    """The image is normalised again and halved by averaging before the first convolution sees it."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor([0.3, -0.2, 0.1])[:, None, None])
        self.pool = nn.AvgPool2d(2)
        self.conv = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.Conv2d(6, 6, 3), nn.ReLU())
        self.fc = nn.Linear(6, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.pool((x - self.mean) / 1.5)
        return self.fc(self.conv(x).mean((2, 3)))


class Inception(nn.Module):
    """Four branches joined; two of them read the image itself, so that there are several first layers."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Sequential(nn.Conv2d(3, 3, 1), nn.ReLU())
        self.three = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4), nn.ReLU())
        self.mix = nn.Sequential(nn.Conv2d(7, 4, (1, 3), padding=(0, 1)), nn.ReLU())
        self.pooled = nn.Sequential(nn.MaxPool2d(3, stride=1, padding=1), nn.Conv2d(7, 4, 1), nn.ReLU())
        self.fc = nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.cat([self.one(x), self.three(x)], 1)
        x = torch.cat([self.mix(x), self.pooled(x)], 1)
        return self.fc(functional.adaptive_avg_pool2d(x, 1).flatten(1))


class Dilated(nn.Module):
    """Dilated and strided convolutions with reflected borders, max pooling that drops a border, a flattened head."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 5, 3, padding=2, dilation=2),
            nn.LeakyReLU(0.1),
            nn.Conv2d(5, 5, 3, stride=2, padding=1, padding_mode="reflect"),
            nn.ReLU(),
            nn.MaxPool2d(2, ceil_mode=True),
        )
        self.fc = nn.Linear(5 * 4 * 3, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.features(x)
        return self.fc(x.reshape(x.shape[0], -1))


class FullyConvolutional(nn.Module):
    """The classes are channels of the last convolution, averaged afterwards: SqueezeNet, All-CNN."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Dropout())
        self.last = nn.Conv2d(6, 4, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.body(x)).mean((2, 3))


class Bottlenecks(nn.Module):
    """Bottleneck blocks whose sums meet a ReLU, one with a projection, one after the other in place."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU())
        self.pool = nn.MaxPool2d(3, stride=2, padding=1)
        self.block1, self.block2 = _Bottleneck(8, 12, 4), _Bottleneck(12, 12, 4)
        self.fc = nn.Linear(12, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.block2(self.block1(self.pool(self.stem(x)))).mean((2, 3)))


class _Bottleneck(nn.Module):
    def __init__(self, inputs: int, outputs: int, inner: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            *(nn.Conv2d(inputs, inner, 1, bias=False), nn.BatchNorm2d(inner), nn.ReLU(inplace=True)),
            *(nn.Conv2d(inner, inner, 3, padding=1, bias=False), nn.BatchNorm2d(inner), nn.ReLU(inplace=True)),
            *(nn.Conv2d(inner, outputs, 1, bias=False), nn.BatchNorm2d(outputs)),
        )
        self.project = nn.Identity() if inputs == outputs else nn.Conv2d(inputs, outputs, 1, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.body(x)
        y += self.project(x)
        return functional.relu_(y)


class Network:
    """A named network with images inside `LOW` and `HIGH`."""

    def __init__(self, name: str, factory: Callable[[], nn.Module], side: tuple[int, int] = (14, 12)) -> None:
        self.name, self.side, self._factory = name, side, factory

    @classmethod
    def of(cls, case: Case) -> Network:
        """One of `networks.CASES`, with its own side and seed."""
        network = cls(case.name, case.factory, case.side)
        network.make = case.make  # type: ignore[method-assign]
        return network

    def make(self) -> nn.Module:
        return made(self._factory, seed=5)

    def images(self, count: int, seed: int = 1) -> torch.Tensor:
        generator = torch.Generator().manual_seed(seed)
        return torch.randn((count, 3, *self.side), generator=generator).clamp(-4.4, 4.5)


def without_biases(model: nn.Module) -> nn.Module:
    """The same network with every shift removed: biases, and the means of batch norms."""
    for module in model.modules():
        if getattr(module, "bias", None) is not None and isinstance(module.bias, torch.Tensor):
            nn.init.zeros_(module.bias)
        if isinstance(module, nn.BatchNorm2d):
            nn.init.zeros_(module.running_mean)
    return model


_OWN = (Grouped, SplitUnits, SqueezeExcited, AveragedStem, Inception, Dilated, FullyConvolutional, Bottlenecks)
_CONVOLUTIONAL = [case for case in CASES.values() if case.name != "norms"]
WIRINGS = {
    network.name: network
    for network in (
        *(Network.of(case) for case in _CONVOLUTIONAL),
        *(Network(factory.__name__.lower(), factory) for factory in _OWN),
    )
}
# Where every active unit has something positive to thank for it once biases are gone, so that nothing gets lost.
RELU_NETWORKS = {
    name: network
    for name, network in WIRINGS.items()
    if name not in ("mobile", "squeezeexcited", "dilated", "inverted", "splitunits")
}
