"""Gradients that scatter nothing: equal to autograd's in float64, ties, overlaps, padding and all."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn import functional

from edgekit.export.decompositions import DECOMPOSITIONS
from edgekit.export.plain_functions import PlainFunctions

SCATTERING = ("scatter", "gather", "index", "max_unpool", "select_backward", "slice_backward")
Pair = tuple[int, int]
Layer = Callable[[torch.Tensor], torch.Tensor]


def gradients(layer: Layer, x: torch.Tensor, seed: int = 0, mode: str = "real") -> tuple[torch.Tensor, torch.Tensor]:
    """Autograd's gradient for a random cotangent, and that of the traced graph, which has to scatter nothing."""

    def pulled(inputs: torch.Tensor, cotangent: torch.Tensor) -> torch.Tensor:
        _, pullback = torch.func.vjp(layer, inputs)
        return pullback(cotangent)[0]

    def plainly(inputs: torch.Tensor, cotangent: torch.Tensor) -> torch.Tensor:
        with PlainFunctions():
            return pulled(inputs, cotangent)

    output = layer(x)
    cotangent = torch.randn(output.shape, generator=torch.Generator().manual_seed(seed), dtype=x.dtype)
    graph = make_fx(plainly, tracing_mode=mode, _allow_non_fake_inputs=True, decomposition_table=DECOMPOSITIONS)(
        x, cotangent
    )
    graph.graph.eliminate_dead_code()
    graph.recompile()
    targets = [str(node.target) for node in graph.graph.nodes if node.op == "call_function"]
    assert not [target for target in targets if any(word in target for word in SCATTERING)], targets
    return pulled(x, cotangent), graph(x, cotangent)


def few_values(*shape: int, seed: int = 0) -> torch.Tensor:
    """float64 with so few different values that most windows hold a tie."""
    return torch.randint(-2, 2, shape, generator=torch.Generator().manual_seed(seed)).double()


@settings(max_examples=40, deadline=None)
@given(
    kernel=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    stride=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    share=st.tuples(st.integers(0, 2), st.integers(0, 2)),
    dilation=st.tuples(st.integers(1, 3), st.integers(1, 2)),
    size=st.tuples(st.integers(4, 11), st.integers(4, 11)),
    ceil_mode=st.booleans(),
    ties=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_max_pooling(  # noqa: PLR0917
    kernel: Pair, stride: Pair, share: Pair, dilation: Pair, size: Pair, ceil_mode: bool, ties: bool, seed: int
) -> None:
    padding = tuple(min(part, side // 2) for part, side in zip(share, kernel, strict=True))
    for axis in (0, 1):
        assume(size[axis] + 2 * padding[axis] >= dilation[axis] * (kernel[axis] - 1) + 1)
    x = few_values(2, 3, *size, seed=seed) if ties else torch.randn(2, 3, *size, dtype=torch.float64)
    expected, found = gradients(
        lambda a: functional.max_pool2d(a, kernel, stride, padding, dilation, ceil_mode=ceil_mode), x, seed
    )
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


def test_the_first_of_equal_maxima_takes_the_gradient() -> None:
    """On paper: windows of a flat map give everything to their upper left cell, and overlapping ones add up."""
    _, found = gradients(lambda a: functional.max_pool2d(a, 2, 1), torch.zeros(2, 1, 3, 3, dtype=torch.float64))
    cotangent = torch.randn((2, 1, 2, 2), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert torch.equal(found[..., :2, :2], cotangent)
    assert not found[..., 2, :].any()
    assert not found[..., :, 2].any()
    peak = torch.zeros(2, 1, 3, 3, dtype=torch.float64)
    peak[..., 1, 1] = 1
    _, found = gradients(lambda a: functional.max_pool2d(a, 2, 1), peak)
    torch.testing.assert_close(found[..., 1, 1], cotangent.sum((-2, -1)))
    assert torch.count_nonzero(found) == 2


@pytest.mark.parametrize("outputs", [1, (1, 1), 2, 3, (2, 3), (5, 1), (4, 7)])
@pytest.mark.parametrize("size", [(6, 6), (7, 5), (12, 8)])
@pytest.mark.parametrize("ties", [True, False])
def test_adaptive_max_pooling(outputs: int | tuple[int, int], size: tuple[int, int], ties: bool) -> None:
    x = few_values(2, 2, *size) if ties else torch.randn(2, 2, *size, dtype=torch.float64)
    expected, found = gradients(lambda a: functional.adaptive_max_pool2d(a, outputs), x)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


@settings(max_examples=25, deadline=None)
@given(
    axis=st.integers(1, 3),
    start=st.integers(-9, 9),
    length=st.integers(1, 9),
    step=st.integers(1, 4),
    size=st.integers(2, 8),
)
def test_slices(axis: int, start: int, length: int, step: int, size: int) -> None:
    places = [slice(None)] * 4
    places[axis] = slice(start, start + length if start >= 0 or start + length < 0 else None, step)
    x = torch.randn(2, size, size, size, dtype=torch.float64)
    assume(x[tuple(places)].numel())
    expected, found = gradients(lambda a: a[tuple(places)] * 2, x)
    assert torch.equal(found, expected)


LAYERS: dict[str, Layer] = {
    "one row": lambda a: a[:, 1] * 3,
    "the last row": lambda a: a.select(2, -1) * 3,
    "unbound": lambda a: a.unbind(3)[1] * 2,
    "whole batch": lambda a: a[:][:, :2] * 2,
    "nearest, twice": lambda a: functional.interpolate(a, scale_factor=2, mode="nearest"),
    "nearest, to a size": lambda a: functional.interpolate(a, size=(11, 4), mode="nearest"),
    "nearest exact": lambda a: functional.interpolate(a, size=(11, 4), mode="nearest-exact"),
    "bilinear, scaled": lambda a: functional.interpolate(a, scale_factor=(1.5, 2), mode="bilinear"),
    "bilinear, smoothed": lambda a: functional.interpolate(a, size=(3, 4), mode="bilinear", antialias=True),
    "bilinear": lambda a: functional.interpolate(a, size=(9, 13), mode="bilinear", align_corners=False),
    "bilinear, corners": lambda a: functional.interpolate(a, size=(9, 13), mode="bilinear", align_corners=True),
    "bilinear, smaller": lambda a: functional.interpolate(a, size=(3, 2), mode="bilinear", align_corners=False),
    "bicubic": lambda a: functional.interpolate(a, size=(9, 13), mode="bicubic", align_corners=False),
    "reflected": lambda a: functional.pad(a, (1, 2, 3, 1), mode="reflect"),
    "repeated": lambda a: functional.pad(a, (1, 2, 3, 1), mode="replicate"),
    "maximum of channels": lambda a: a.max(1).values,
    "minimum of rows": lambda a: a.min(2, keepdim=True).values,
    "global maximum": lambda a: a.amax((2, 3)),
}


@pytest.mark.parametrize("layer", LAYERS.values(), ids=LAYERS)
@pytest.mark.parametrize("ties", [True, False])
def test_what_picks_and_copies(layer: Layer, ties: bool) -> None:
    x = few_values(2, 3, 6, 5) if ties else torch.randn(2, 3, 6, 5, dtype=torch.float64)
    expected, found = gradients(layer, x, mode="symbolic")
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
