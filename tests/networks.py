"""Tiny networks that between them hold every kind of wiring an explained graph has to cope with.

Each is made from a seed, in evaluation mode, with batch-norm statistics that are not those of a fresh layer, and is
listed in `CASES` with the taps to try and the form of map that has to come out for each.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

CLOSED = "closed form"
TRACED = "traced gradient"


class Residual(nn.Module):
    """Two basic blocks, the second with stride 2 and a projection; additions in place, as torchvision writes them."""

    def __init__(self, classes: int = 5) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 6, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(6)
        self.relu = nn.ReLU(inplace=True)
        self.layer1 = _Block(6, 6, 1)
        self.layer2 = _Block(6, 10, 2)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(10, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.layer2(self.layer1(x))
        return self.fc(torch.flatten(self.avgpool(x), 1))


class _Block(nn.Module):
    def __init__(self, inputs: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, channels, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.downsample: nn.Module | None = None
        if stride != 1 or inputs != channels:
            self.downsample = nn.Sequential(
                nn.Conv2d(inputs, channels, 1, stride=stride, bias=False), nn.BatchNorm2d(channels)
            )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        y += x if self.downsample is None else self.downsample(x)
        return self.relu(y)


class Vgg(nn.Module):
    """Convolutions with bias, max pooling and a head that flattens: nothing is pooled globally."""

    def __init__(self, classes: int = 4) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 6, 3, padding=1),
            nn.BatchNorm2d(6),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(2),
            nn.Conv2d(6, 8, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, stride=2, padding=1),
        )
        self.classifier = nn.Sequential(
            nn.Linear(8 * 5 * 3, 12), nn.ReLU(inplace=True), nn.Dropout(), nn.Linear(12, classes)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.classifier(torch.flatten(self.features(x), 1))


class _SqueezeExcite(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(channels, 4, 1)
        self.expand = nn.Conv2d(4, channels, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        squeezed = functional.adaptive_avg_pool2d(x, 1)
        return x * functional.hardsigmoid(self.expand(functional.relu(self.reduce(squeezed))))


class Mobile(nn.Module):
    """Depthwise convolutions, ReLU6, hard-swish, SiLU, squeeze-and-excitation, and two linear layers at the end."""

    def __init__(self, classes: int = 6) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, 8, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(8), nn.Hardswish()
        )
        self.block1 = nn.Sequential(
            nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False), nn.BatchNorm2d(8), nn.ReLU6(), nn.Conv2d(8, 12, 1)
        )
        self.block2 = nn.Sequential(
            nn.Conv2d(12, 12, 3, stride=2, padding=1, groups=12, bias=False),
            nn.BatchNorm2d(12),
            nn.SiLU(),
            _SqueezeExcite(12),
        )
        self.head = nn.Sequential(nn.Conv2d(12, 16, 1, bias=False), nn.BatchNorm2d(16), nn.Hardswish(inplace=True))
        self.classifier = nn.Sequential(nn.Linear(16, 10), nn.Hardswish(), nn.Linear(10, classes))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.head(self.block2(self.block1(self.stem(x))))
        return self.classifier(x.mean([2, 3]))


class Inverted(nn.Module):
    """Inverted residuals without a nonlinearity at their end; pooled, dropped out in training, and one linear layer."""

    def __init__(self, classes: int = 4) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 6, 3, stride=2, padding=1), nn.BatchNorm2d(6), nn.ReLU6())
        self.expand = nn.Sequential(nn.Conv2d(6, 18, 1, bias=False), nn.BatchNorm2d(18), nn.ReLU6(inplace=True))
        self.depthwise = nn.Sequential(
            nn.Conv2d(18, 18, 3, padding=1, groups=18, bias=False), nn.BatchNorm2d(18), nn.ReLU6(inplace=True)
        )
        self.project = nn.Sequential(nn.Conv2d(18, 6, 1, bias=False), nn.BatchNorm2d(6))
        self.last = nn.Sequential(nn.Conv2d(6, 14, 1, bias=False), nn.BatchNorm2d(14), nn.ReLU6(inplace=True))
        self.classifier = nn.Sequential(nn.Dropout(0.5), nn.Linear(14, classes))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        x = self.last(x + self.project(self.depthwise(self.expand(x))))
        return self.classifier(functional.adaptive_avg_pool2d(x, (1, 1)).flatten(1))


class Dense(nn.Module):
    """Concatenated features, an average-pooling transition, a batch norm whose ReLU is a function: as in DenseNet."""

    def __init__(self, classes: int = 5) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, padding=1, bias=False)
        self.grow1 = nn.Sequential(nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 4, 3, padding=1, bias=False))
        self.grow2 = nn.Sequential(
            nn.BatchNorm2d(10), nn.ReLU(), nn.Conv2d(10, 4, 3, padding=2, dilation=2, bias=False)
        )
        self.transition = nn.Sequential(nn.BatchNorm2d(14), nn.ReLU(), nn.Conv2d(14, 8, 1, bias=False), nn.AvgPool2d(2))
        self.norm = nn.BatchNorm2d(8)
        self.classifier = nn.Linear(8, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        x = torch.cat([x, self.grow1(x)], 1)
        x = torch.cat([x, self.grow2(x)], 1)
        x = functional.relu(self.norm(self.transition(x)), inplace=True)
        return self.classifier(torch.flatten(functional.adaptive_avg_pool2d(x, (1, 1)), 1))


class MaxPooledHead(nn.Module):
    """A global maximum in front of the linear layer: pooled, but its gradient depends on the image."""

    def __init__(self, classes: int = 3) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 7, 3, stride=2, padding=1), nn.ReLU())
        self.fc = nn.Linear(7, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(functional.adaptive_max_pool2d(self.features(x), 1).flatten(1))


class HeadReadsInput(nn.Module):
    """Pooled and linear, yet the pooled features are scaled by the input: no row of the weight is the gradient."""

    def __init__(self, classes: int = 3) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 7, 3, stride=2, padding=1), nn.ReLU())
        self.fc = nn.Linear(7, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.features(x).mean((2, 3)) * (1 + x.mean((1, 2, 3))[:, None]))


class Norms(nn.Module):
    """Group and layer normalisation and GELU behind the tap: gradients that mix every cell with every other."""

    def __init__(self, classes: int = 4) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.GroupNorm(2, 8), nn.GELU())
        self.mix = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1, groups=2), nn.GroupNorm(4, 8), nn.GELU())
        self.norm = nn.LayerNorm(8)
        self.fc = nn.Linear(8, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.norm(self.mix(self.features(x)).mean((-2, -1))))


class Perceptron(nn.Module):
    """No spatial map anywhere."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 16), nn.ReLU(), nn.Linear(16, 3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x)


class SharedConvolution(nn.Module):
    """One convolution module that runs twice, and a plain one behind it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)
        self.last = nn.Conv2d(3, 5, 1)
        self.fc = nn.Linear(5, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.conv(functional.relu(self.conv(x)))
        return self.fc(functional.relu(self.last(x)).mean((2, 3)))


class DeadEnd(nn.Module):
    """`unused` runs and its output is thrown away."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Conv2d(3, 4, 3, padding=1)
        self.unused = nn.Conv2d(4, 4, 1)
        self.fc = nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.features(x)
        self.unused(x)
        return self.fc(x.mean((2, 3)))


class DependsOnData(nn.Module):
    """Takes another way for bright images: no one graph says what it does."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Conv2d(3, 4, 3, padding=1)
        self.fc = nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.features(x)
        if x.mean() > 0:
            x = x * 2
        return self.fc(x.mean((2, 3)))


@dataclass(frozen=True)
class Case:
    """A network to try things on.

    Attributes:
        name: For test ids.
        factory: Makes an instance with torch's own random weights.
        side: Height and width of its input.
        taps: Tap to the form of map that has to be chosen there.
        found: The tap that has to be found when none is named.
        seed: Of the weights, chosen so that most maps are not empty.
    """

    name: str
    factory: Callable[[], nn.Module]
    side: tuple[int, int]
    taps: dict[str, str]
    found: str
    seed: int = 0

    def make(self) -> nn.Module:
        """An instance whose answers differ from image to image, as those of a trained one do."""
        model = made(self.factory, self.seed)
        last = [module for module in model.modules() if isinstance(module, nn.Linear)][-1]
        last.bias -= model(self.images(64, seed=9)).mean(dim=0)
        return model

    def images(self, count: int, seed: int = 1) -> torch.Tensor:
        """float32 [count, 3, H, W], unlike the uniform images that graphs are traced with."""
        generator = torch.Generator().manual_seed(seed)
        return torch.randn((count, 3, *self.side), generator=generator)


def made(factory: Callable[[], nn.Module], seed: int = 0) -> nn.Module:
    """A seeded instance in evaluation mode, without gradients, with settled batch-norm statistics."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = factory()
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.uniform_(module.running_mean, -0.5, 0.5)
                nn.init.uniform_(module.running_var, 0.3, 1.5)
                nn.init.uniform_(module.weight, 0.5, 1.5)
                nn.init.uniform_(module.bias, -0.3, 0.5)
    return model.eval().requires_grad_(False)


CASES = {
    case.name: case
    for case in (
        # An odd side: the stride-2 convolutions drop a row and a column that their gradients have to restore.
        Case("residual", Residual, (17, 15), {"layer2": CLOSED, "layer2.bn2": TRACED, "layer1": TRACED}, "layer2"),
        Case("vgg", Vgg, (18, 10), {"features": TRACED, "features.1": TRACED}, "features"),
        Case("mobile", Mobile, (20, 20), {"head": TRACED, "block1": TRACED}, "head", seed=3),
        Case("inverted", Inverted, (16, 16), {"last": CLOSED, "project": TRACED}, "last"),
        Case("dense", Dense, (12, 12), {"norm": TRACED, "grow1": TRACED}, "norm", seed=4),
        Case("max-pooled-head", MaxPooledHead, (14, 14), {"features": TRACED}, "features"),
        Case("head-reads-input", HeadReadsInput, (14, 14), {"features": TRACED}, "features"),
        Case("norms", Norms, (14, 14), {"mix": TRACED, "features": TRACED}, "mix"),
    )
}
TAPS = [(name, tap) for name, case in CASES.items() for tap in case.taps]


# Networks whose maps are not [N, C, h, w]. They stand beside `CASES`, since a bare name does not say their layout.


class Attention(nn.Module):
    """Self-attention whose inner tensors look like maps to whoever only counts dimensions: [N, heads, T, T]."""

    def __init__(self, width: int, heads: int = 2) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.scores = nn.Identity()
        self.project = nn.Linear(width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, tokens, width = x.shape
        q, k, v = self.qkv(x).reshape(batch, tokens, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        weights = self.scores((q @ k.transpose(-2, -1) * (width // self.heads) ** -0.5).softmax(dim=-1))
        return self.project((weights @ v).transpose(1, 2).reshape(batch, tokens, width))


class _TokenBlock(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm1, self.attention = nn.LayerNorm(width), Attention(width)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 16), nn.GELU(), nn.Linear(16, width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.attention(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class Tokens(nn.Module):
    """A vision transformer: patches, `prefix` tokens of its own before them, two blocks.

    With a class token (prefix at least 1) the answer is read off it; without, the cells are averaged.
    """

    def __init__(self, prefix: int = 1, classes: int = 4, width: int = 8) -> None:
        super().__init__()
        self.prefix = prefix
        self.embed = nn.Conv2d(3, width, 4, stride=4)
        self.register_buffer("tokens", torch.randn(1, prefix, width))
        self.register_buffer("position", torch.randn(1, prefix + 12, width))
        self.blocks = nn.ModuleList([_TokenBlock(width), _TokenBlock(width)])
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.embed(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.tokens.expand(x.shape[0], -1, -1), x], dim=1) + self.position
        for block in self.blocks:
            x = block(x)
        x = self.norm(x)
        return self.head(x[:, 0] if self.prefix else x.mean(dim=1))


class Windows(nn.Module):
    """Maps kept as [N, h, w, C], and halved by a linear layer that merges 2 x 2 patches, as in Swin."""

    def __init__(self, classes: int = 4, width: int = 6) -> None:
        super().__init__()
        self.embed = nn.Conv2d(3, width, 2, stride=2)
        self.norm1 = nn.LayerNorm(width)
        self.mix = nn.Linear(width, width)
        self.merge = nn.Linear(4 * width, 10)
        self.norm2 = nn.LayerNorm(10)
        self.head = nn.Linear(10, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.embed(x).permute(0, 2, 3, 1)
        x = x + functional.gelu(self.mix(self.norm1(x)))
        parts = [x[:, row::2, column::2] for row in (0, 1) for column in (0, 1)]
        x = self.norm2(functional.gelu(self.merge(torch.cat(parts, dim=-1))))
        return self.head(x.mean(dim=(1, 2)))


class TwoTowers(nn.Module):
    """Two branches that see the image apart and are pooled apart: neither map is the network's last."""

    def __init__(self, classes: int = 3) -> None:
        super().__init__()
        self.left = nn.Sequential(nn.Conv2d(3, 6, 3, stride=2, padding=1), nn.ReLU())
        self.right = nn.Sequential(nn.Conv2d(3, 5, 3, stride=2, padding=1), nn.ReLU())
        self.head = nn.Linear(11, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(torch.cat([self.left(x).mean((2, 3)), self.right(x).mean((2, 3))], dim=1))


@dataclass(frozen=True)
class LayoutCase:
    """A network whose maps have another layout: where its tap is found, and what is recorded of it."""

    factory: Callable[[], nn.Module]
    side: tuple[int, int]
    found: str
    kind: str
    prefix: int
    map_size: tuple[int, int]

    def make(self) -> nn.Module:
        """An instance."""
        return made(self.factory)

    def images(self, count: int, seed: int = 1) -> torch.Tensor:
        """float32 [count, 3, H, W]."""
        return torch.randn((count, 3, *self.side), generator=torch.Generator().manual_seed(seed))


LAYOUT_CASES = {
    "class-token": LayoutCase(Tokens, (16, 12), "blocks.1.norm1", "tokens", 1, (4, 3)),
    "three-tokens": LayoutCase(lambda: Tokens(3), (16, 12), "blocks.1.norm1", "tokens", 3, (4, 3)),
    "averaged-tokens": LayoutCase(lambda: Tokens(0), (16, 12), "norm", "tokens", 0, (4, 3)),
    "windows": LayoutCase(Windows, (16, 12), "norm2", "nhwc", 0, (4, 3)),
}
