"""Decomposed gradients against autograd, for window shapes that do and do not fit the map, on another batch size."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from edgekit.export.decompositions import DECOMPOSITIONS
from edgekit.export.trace import trace

LAYERS: dict[str, nn.Module] = {
    "conv": nn.Conv2d(4, 6, 3, padding=1),
    "conv, stride 2": nn.Conv2d(4, 6, 3, stride=2, padding=1),
    "conv, stride 3, nothing padded": nn.Conv2d(4, 6, 2, stride=3, bias=False),
    "conv, depthwise, stride 2": nn.Conv2d(4, 4, 3, stride=2, padding=1, groups=4),
    "conv, grouped and dilated": nn.Conv2d(4, 6, 3, stride=2, padding=2, dilation=2, groups=2),
    "conv, another side each way": nn.Conv2d(4, 6, (1, 5), stride=(1, 2), padding=(0, 2)),
    "transposed conv": nn.ConvTranspose2d(4, 6, 2, stride=2),
    "transposed conv, all options": nn.ConvTranspose2d(4, 6, 3, stride=3, padding=1, output_padding=2, groups=2),
    "average": nn.AvgPool2d(2),
    "average, overlapping": nn.AvgPool2d(3, stride=2),
    "average, padded": nn.AvgPool2d(3, stride=2, padding=1),
    "average, padding not counted": nn.AvgPool2d(3, stride=2, padding=1, count_include_pad=False),
    "average, windows over the edge": nn.AvgPool2d(3, stride=2, ceil_mode=True),
    "average, everything at once": nn.AvgPool2d((2, 4), (2, 3), (1, 2), ceil_mode=True),
    "average, everything but the padding": nn.AvgPool2d((2, 4), (2, 3), (1, 2), True, count_include_pad=False),
    "average, own divisor": nn.AvgPool2d(3, stride=2, padding=1, divisor_override=5),
    "adaptive average": nn.AdaptiveAvgPool2d((3, 2)),
    "adaptive average, as large": nn.AdaptiveAvgPool2d((9, 10)),
    "adaptive average, larger": nn.AdaptiveAvgPool2d((12, 11)),
    "adaptive average, one row": nn.AdaptiveAvgPool2d((1, 4)),
    "adaptive average, one cell": nn.AdaptiveAvgPool2d(1),
    "adaptive maximum": nn.AdaptiveMaxPool2d((3, 2)),
    "adaptive maximum, overlapping": nn.AdaptiveMaxPool2d((7, 8)),
    "adaptive maximum, one cell": nn.AdaptiveMaxPool2d(1),
    "maximum": nn.MaxPool2d(3, stride=2, padding=1),
    "maximum, windows over the edge": nn.MaxPool2d(2, ceil_mode=True),
    "ReLU6": nn.ReLU6(),
    "hard-swish": nn.Hardswish(),
    "hard-sigmoid": nn.Hardsigmoid(),
    "SiLU": nn.SiLU(),
    "GELU": nn.GELU(),
    "batch norm": nn.BatchNorm2d(4),
    "softmax": nn.Softmax(1),
}


def random(*shape: int, seed: int) -> torch.Tensor:
    return 3 * torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("name", LAYERS)
def test_the_traced_gradient_is_autograds(name: str) -> None:
    layer = LAYERS[name].double().eval().requires_grad_(False)

    def gradient(activation: torch.Tensor, outward: torch.Tensor) -> torch.Tensor:
        _, pullback = torch.func.vjp(layer, activation)
        return pullback(outward)[0]

    # No other side is 13: equal sides would be taken for one.
    example = random(13, 4, 9, 10, seed=0)
    graph = trace(gradient, (example, random(*layer(example).shape, seed=1)))
    targets = {node.target for node in graph.graph.nodes if node.op == "call_function"}
    assert not targets & set(DECOMPOSITIONS), "left whole"

    activation = random(5, 4, 9, 10, seed=2).requires_grad_(True)
    answer = layer(activation)
    outward = random(*answer.shape, seed=3)
    (expected,) = torch.autograd.grad(answer, activation, outward)
    found = graph(activation.detach(), outward)
    assert found.shape == expected.shape
    assert expected.abs().max() > 0
    # torch's own hard-sigmoid holds one sixth in single precision.
    torch.testing.assert_close(found, expected, rtol=1e-7, atol=1e-13)


def test_zeros_that_autograd_fills_in_are_zeros() -> None:
    """A tensor that autograd allocates in a memory layout of its own still holds what is written into it."""
    layer = nn.Conv2d(4, 4, 1).double().requires_grad_(False)

    def gradient(activation: torch.Tensor) -> torch.Tensor:
        _, pullback = torch.func.vjp(
            lambda a: nn.functional.silu(layer(a.to(memory_format=torch.channels_last))), activation
        )
        return pullback(torch.ones_like(activation))[0]

    graph = trace(gradient, (random(2, 4, 5, 6, seed=0),))
    other = random(3, 4, 5, 6, seed=1)
    torch.testing.assert_close(graph(other), gradient(other), rtol=1e-11, atol=1e-13)
