"""Relative attributing propagation.

Nam et al., "Relative Attributing Propagation: Interpreting the Comparative Contributions of Individual Units in Deep
Neural Networks", AAAI 2020 (arXiv 1904.00605). Three steps: absolute influence behind the last layer; positive and
negative contributors both credited, each in its own proportion, in the layers below; and a uniform shift that takes
back what this gave too much, so that units of little influence end up negative. Written down here from the authors'
published code.
"""

from __future__ import annotations

import torch

from edgekit.teacher.class_choice import selected
from edgekit.teacher.relevance.contributions import (
    negative_parts,
    positive_parts,
    ratio,
    shared,
    shared_above_low,
    shared_by_sum,
    shared_in_box,
    totals,
)
from edgekit.teacher.relevance.method import RuleMethod
from edgekit.teacher.relevance.propagate import Layer, Sum

__all__ = ["RelativeAttributingPropagation"]


class RelativeAttributingPropagation(RuleMethod):
    """Relevance by relative influence, signed.

    With `z_ij = x_i w_ij`, `P_j = sum_i z_ij^+` and `N_j = sum_i |z_ij^-|`:

    - last layer, from the logit `y`: `R_i = y |z_i| / sum_i' |z_i'|`;
    - layers below: `C_i = sum_j (z_ij^+ / P_j + |z_ij^-| / (P_j + N_j)) R_j`, then the shift
      `R_i = C_i - (sum C - sum R) / n` over the `n` inputs with `C_i != 0`, for each sample;
    - layers that read pixels: the z^B rule; additions and averages: `R_k = x_k / (sum_k' x_k') R`, signed.

    Every step keeps the sum, biases have no part: the map sums to the logit, as long as each layer has an input that
    contributes. It is signed; Park et al. 2020 score its positive part.

    The authors' code treats a convolution unlike a linear layer where `R_j` is negative (it credits inhibitors in
    place of contributors), counts relevance twice where inputs have both signs, and takes the bounds of z^B from the
    pixels of the image at hand. Here one rule, the linear layer's, serves both; inputs of either sign are told apart
    by the sign of `z_ij`; and bounds are those of the card.
    """

    name = "rap"

    def start(self, logits: torch.Tensor, class_index: torch.Tensor) -> torch.Tensor:
        """The explained logit at its place, zero elsewhere."""
        return logits * selected(logits, class_index)

    def through_layer(self, layer: Layer, relevance: torch.Tensor) -> torch.Tensor:
        """See the class."""
        if layer.bounds is not None:
            return shared_in_box(layer, relevance)
        helping, hindering = positive_parts(layer), negative_parts(layer)
        positive, negative = totals(layer, helping), -totals(layer, hindering)
        by_influence = ratio(relevance, positive + negative)
        hindered = -shared(layer, hindering, by_influence)
        if layer.last:
            return shared(layer, helping, by_influence) + hindered
        return _shifted(shared(layer, helping, ratio(relevance, positive)) + hindered, relevance)

    def through_sum(self, total: Sum, relevance: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """`R_k = x_k / (sum_k' x_k') R` with the sign of each `x_k`; z^B where nothing but pixels is summed."""
        if total.bounds is not None:
            return shared_above_low(total, relevance)
        return shared_by_sum(total.apply, total.inputs, relevance)


def _shifted(credit: torch.Tensor, relevance: torch.Tensor) -> torch.Tensor:
    """`credit` with the same taken from every credited unit, so that each sample's sum is that of `relevance`."""
    axes = tuple(range(1, credit.dim()))
    credited = credit != 0
    excess = credit.sum(dim=axes) - relevance.sum(dim=tuple(range(1, relevance.dim())))
    each = ratio(excess, credited.sum(dim=axes).to(credit.dtype))
    return credit - torch.where(credited, each.reshape(-1, *[1] * len(axes)), 0.0)
