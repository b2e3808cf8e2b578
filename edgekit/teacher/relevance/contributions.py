"""How a layer's output is made of its inputs, and relevance shared out in proportion.

Everywhere `0 / 0` is zero: an output without contributions has nothing to share its relevance among.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from edgekit.teacher.relevance.propagate import Layer, Sum, pulled

__all__ = [
    "negative_parts",
    "positive_parts",
    "ratio",
    "shared",
    "shared_above_low",
    "shared_by_sum",
    "shared_in_box",
    "totals",
]

# One group of contributions: the inputs and the weight that make them.
Part = tuple[torch.Tensor, torch.Tensor]


def ratio(numerator: torch.Tensor, denominator: torch.Tensor) -> torch.Tensor:
    """`numerator / denominator`, zero where the denominator is."""
    empty = denominator == 0
    return torch.where(empty, 0.0, numerator / torch.where(empty, 1.0, denominator))


def positive_parts(layer: Layer) -> list[Part]:
    """The parts whose contributions `x_i w_ij` are positive: both factors positive, or both negative."""
    x, weight = layer.x, layer.weight
    return _present([(x.clamp(min=0), weight.clamp(min=0)), (x.clamp(max=0), weight.clamp(max=0))])


def negative_parts(layer: Layer) -> list[Part]:
    """The parts whose contributions `x_i w_ij` are negative."""
    x, weight = layer.x, layer.weight
    return _present([(x.clamp(min=0), weight.clamp(max=0)), (x.clamp(max=0), weight.clamp(min=0))])


def _present(parts: Sequence[Part]) -> list[Part]:
    # Behind a ReLU half of the parts are empty, and a convolution of zeros is as slow as any.
    return [part for part in parts if bool((part[0] != 0).any())] or [parts[0]]


def totals(layer: Layer, parts: Sequence[Part]) -> torch.Tensor:
    """`sum_i` of the parts' contributions, one for each output."""
    first, *others = (layer.apply(x, weight, None) for x, weight in parts)
    return sum(others, start=first)


def shared(layer: Layer, parts: Sequence[Part], each: torch.Tensor) -> torch.Tensor:
    """`sum_j c_ij each_j` with the contributions `c_ij` of the parts, one for each input."""

    def one(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        (back,) = pulled(lambda inputs: layer.apply(inputs, weight, None), (x,), each)
        return x * back

    first, *others = (one(*part) for part in parts)
    return sum(others, start=first)


def shared_in_box(layer: Layer, relevance: torch.Tensor) -> torch.Tensor:
    """The z^B rule for inputs between known bounds, for `layer.bounds` that are not None.

    Montavon et al., "Explaining Nonlinear Classification Decisions with Deep Taylor Decomposition", Pattern
    Recognition 65, 2017, the rule for pixel intensities: `R_i = sum_j q_ij / (sum_i' q_i'j) R_j` with
    `q_ij = x_i w_ij - l_i w_ij^+ - h_i w_ij^-`, which is never negative. The bias has no part in it, so all relevance
    reaches the inputs. Zero padding is a cell whose bounds are both zero.
    """
    assert layer.bounds is not None
    low, high = layer.bounds.low.expand_as(layer.x), layer.bounds.high.expand_as(layer.x)
    # Written as (x - l) w^+ + (x - h) w^-: no cancellation, and a padded cell stays a zero.
    parts = [(layer.x - low, layer.weight.clamp(min=0)), (layer.x - high, layer.weight.clamp(max=0))]
    return shared(layer, parts, ratio(relevance, totals(layer, parts)))


def shared_above_low(total: Sum, relevance: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """The z^B rule for a sum, for `total.bounds` that are not None.

    Its coefficients are positive, so only `l` counts, and only `h` for what is subtracted.
    """
    assert total.bounds is not None
    moved = tuple(
        x - (bounds.low if sign > 0 else bounds.high)
        for x, sign, bounds in zip(total.inputs, total.signs, total.bounds, strict=True)
    )
    return shared_by_sum(total.apply, moved, relevance)


def shared_by_sum(
    apply: Callable[..., torch.Tensor], inputs: tuple[torch.Tensor, ...], relevance: torch.Tensor
) -> tuple[torch.Tensor, ...]:
    """Each input's share in proportion to what it contributes to `apply(*inputs)`, with its sign."""
    back = pulled(apply, inputs, ratio(relevance, apply(*inputs)))
    return tuple(x * share for x, share in zip(inputs, back, strict=True))
