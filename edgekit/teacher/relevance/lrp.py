"""Layer-wise relevance propagation with the alpha-1 beta-0 rule.

Bach et al., "On Pixel-Wise Explanations for Non-Linear Classifier Decisions by Layer-Wise Relevance Propagation",
PLoS ONE 10(7), 2015, the alpha-beta rule; the first layer as in Montavon et al. 2017 (`shared_in_box`).
"""

from __future__ import annotations

import torch

from edgekit.teacher.class_choice import selected
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
from edgekit.teacher.relevance.protocol import RelevanceOptions

__all__ = ["LrpAlpha1Beta0"]


class LrpAlpha1Beta0(RuleMethod):
    """`R_i = sum_j (x_i w_ij)^+ / (sum_i' (x_i' w_i'j)^+ + b_j^+) R_j`, starting from the explained logit itself.

    An addition or average is a layer without bias whose weights are its coefficients, so a residual block splits its
    relevance and never hands the whole of it to both branches. Pixels get theirs by the z^B rule.

    The positive part of a bias is one more contribution and keeps its share. So the map sums to the logit, less what
    biases kept and what arrived at outputs without any positive contribution. In a network of ReLUs without biases
    (merged batch norms included) no such output is active, and the map sums to the logit exactly. It has the sign of
    the logit everywhere.

    Args:
        options: Bounds and tap.
        signed_sums: Share additions and averages by signed contributions, `R_k = x_k / (sum_k' x_k') R`, as zennit's
            composites and iNNvestigate do. The sum itself then keeps all relevance, yet a branch that lowered it gets
            negative relevance, which layers behind an inactive ReLU lose: maps may sum to more than the logit.
    """

    name = "lrp-alpha1beta0"

    def __init__(self, options: RelevanceOptions, *, signed_sums: bool = False) -> None:
        super().__init__(options)
        self.signed_sums = signed_sums

    def start(self, logits: torch.Tensor, class_index: torch.Tensor) -> torch.Tensor:
        """The explained logit at its place, zero elsewhere."""
        return logits * selected(logits, class_index)

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
        """See the class; z^B where nothing but pixels is summed."""
        if total.bounds is not None:
            return shared_above_low(total, relevance)
        if self.signed_sums:
            return shared_by_sum(total.apply, total.inputs, relevance)
        positive = tuple(
            x.clamp(min=0) if sign > 0 else x.clamp(max=0) for x, sign in zip(total.inputs, total.signs, strict=True)
        )
        return shared_by_sum(total.apply, positive, relevance)
