"""Excitation backprop: the probability that a winner-take-all walk from the class ends at a cell.

Zhang et al., "Top-down Neural Attention by Excitation Backprop", ECCV 2016 (IJCV 126, 2018).
"""

from __future__ import annotations

import torch

from edgekit.teacher.class_choice import selected
from edgekit.teacher.relevance.contributions import (
    ratio,
    shared,
    shared_above_low,
    shared_by_sum,
    totals,
)
from edgekit.teacher.relevance.method import RuleMethod
from edgekit.teacher.relevance.propagate import Layer, Sum

__all__ = ["ContrastiveExcitationBackprop", "ExcitationBackprop"]


def _excited(layer: Layer, weight: torch.Tensor, relevance: torch.Tensor) -> torch.Tensor:
    """The marginal winning probability, summed over winners: `P(i) = sum_j a_i w_ij^+ / (sum_i' a_i' w_i'j^+) P(j)`."""
    # Pixels are counted from the lowest value they can have: the method asks for activations that are never negative.
    activation = layer.x.clamp(min=0) if layer.bounds is None else layer.x - layer.bounds.low
    parts = [(activation, weight.clamp(min=0))]
    return shared(layer, parts, ratio(relevance, totals(layer, parts)))


class ExcitationBackprop(RuleMethod):
    """Marginal winning probabilities, starting from probability 1 at the explained class.

    Only positive weights (excitatory connections) pass anything on; biases have no part; activations below zero, as
    smooth activation functions and sums without a ReLU behind them have, count as zero. Pixels are counted from their
    lower bound. The map is never negative and sums to one, less the probability that ended at units without any
    excitatory input.
    """

    name = "excitation-backprop"

    def start(self, logits: torch.Tensor, class_index: torch.Tensor) -> torch.Tensor:
        """Probability one at the explained class."""
        return selected(logits, class_index)

    def through_layer(self, layer: Layer, relevance: torch.Tensor) -> torch.Tensor:
        """See `_excited`."""
        return _excited(layer, layer.weight, relevance)

    def through_sum(self, total: Sum, relevance: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """An addition or average is a layer whose weights are its coefficients; what is subtracted excites nothing."""
        if total.bounds is not None:
            return shared_above_low(total, relevance)
        inputs = tuple(
            x.clamp(min=0) if sign > 0 else torch.zeros_like(x)
            for x, sign in zip(total.inputs, total.signs, strict=True)
        )
        return shared_by_sum(total.apply, inputs, relevance)


class ContrastiveExcitationBackprop(ExcitationBackprop):
    """The difference between the maps of the class and of its dual, a unit with the negated weights of the last layer.

    Zhang et al. 2016, "contrastive top-down attention". The difference is formed behind the last layer and passed on
    from there, which is the same as passing on both, because every further step is linear in what it passes on. Raw:
    the paper shows the positive part. It sums to zero, up to what ended at units without excitatory input.
    """

    name = "contrastive-excitation-backprop"

    def through_layer(self, layer: Layer, relevance: torch.Tensor) -> torch.Tensor:
        """The difference at the last layer, the ordinary rule below it."""
        found = _excited(layer, layer.weight, relevance)
        return found - _excited(layer, -layer.weight, relevance) if layer.last else found
