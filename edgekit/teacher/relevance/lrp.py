"""Layer-wise relevance propagation with the alpha-1 beta-0 rule.

Bach et al., "On Pixel-Wise Explanations for Non-Linear Classifier Decisions by Layer-Wise Relevance Propagation",
PLoS ONE 10(7), 2015, equations 58 and 60; the first layer as in Montavon et al. 2017 (`shared_in_box`).
"""

from __future__ import annotations

import torch

from edgekit.teacher.methods.protocol import one_hot
from edgekit.teacher.relevance.contributions import (
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

__all__ = ["LrpAlpha1Beta0", "proportional"]


def proportional(total: Sum, relevance: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Additions and averages: `R_k = x_k / (sum_k' x_k') R`, with the sign of each `x_k`.

    What arrives at an output is always a multiple of that output (each rule shares in proportion to contributions),
    so that small sums do not blow up, and no relevance is lost or counted twice. Where nothing but pixels is summed
    this does not hold, and the z^B rule takes its place.
    """
    if total.bounds is not None:
        return shared_above_low(total, relevance)
    return shared_by_sum(total.apply, total.inputs, relevance)


class LrpAlpha1Beta0(RuleMethod):
    """`R_i = sum_j (x_i w_ij)^+ / (sum_i' (x_i' w_i'j)^+ + b_j^+) R_j`, starting from the explained logit itself.

    The positive part of a bias is one more contribution and keeps its share. So the map sums to the logit, less what
    biases kept and what arrived at outputs without any positive contribution: for a network without biases (merged
    batch norms included) whose every layer has positive contributions it sums to the logit exactly. The map of a
    negative logit is negative. Pixels get their relevance by the z^B rule, which keeps all of it.
    """

    name = "lrp-alpha1beta0"

    def start(self, logits: torch.Tensor, class_index: torch.Tensor) -> torch.Tensor:
        """The explained logit at its place, zero elsewhere."""
        return logits * one_hot(logits, class_index)

    def through_layer(self, layer: Layer, relevance: torch.Tensor) -> torch.Tensor:
        """See the class; z^B where nothing but pixels is read."""
        if layer.bounds is not None:
            return shared_in_box(layer, relevance)
        parts = positive_parts(layer)
        (x, weight), *others = parts
        bias = None if layer.bias is None else layer.bias.clamp(min=0)
        denominator = layer.apply(x, weight, bias)
        if others:
            denominator = denominator + totals(layer, others)
        return shared(layer, parts, ratio(relevance, denominator))

    def through_sum(self, total: Sum, relevance: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """See `proportional`."""
        return proportional(total, relevance)
