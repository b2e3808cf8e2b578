"""How much a logit answers to each channel of an activation, and the map that follows: Grad-CAM up to a scale."""

from __future__ import annotations

import torch

from edgekit.teacher.tap import Tapped

__all__ = ["sensitivities", "sensitivity", "sensitivity_map", "single"]


def single(values: torch.Tensor) -> torch.Tensor:
    """Half precision as float32, anything else as it is: sums over channels and squares overflow float16."""
    return values.float() if values.dtype in (torch.float16, torch.bfloat16) else values


def sensitivities(
    tapped: Tapped, chosen: torch.Tensor, *, differentiable: bool, pooling: str = "sum"
) -> tuple[torch.Tensor, ...]:
    """`alpha_i = sum_hw d(logit)/d(A_i)` of every sample's logit `chosen` [N], for each tap [N, C].

    The gradient is taken with respect to the activations alone, so nothing before the first of them is walked back
    through, neither now nor when the result is differentiated.

    Args:
        tapped: The forward pass, with a graph from the activations on. Of a network in training mode it has to have
            been made within `edgekit.compress.matching.second_order.differentiable_twice`, which holds the batch's
            statistics where `differentiable`.
        chosen: int64 [N], the class of each sample.
        differentiable: Whether the result is to be differentiated again.
        pooling: "sum" over the map as in the paper, or "mean".
    """
    logits = tapped.logits.gather(1, chosen[:, None]).sum()
    # A further answer of the same pass may be asked for, so its graph must outlive this one.
    gradients = torch.autograd.grad(logits, tapped.activations, create_graph=differentiable, retain_graph=True)
    pooled = torch.sum if pooling == "sum" else torch.mean
    return tuple(pooled(single(gradient), dim=(2, 3)) for gradient in gradients)


def sensitivity(tapped: Tapped, chosen: torch.Tensor, *, differentiable: bool) -> torch.Tensor:
    """`sensitivities` of the first tap."""
    return sensitivities(tapped, chosen, differentiable=differentiable)[0]


def sensitivity_map(weights: torch.Tensor, activation: torch.Tensor) -> torch.Tensor:
    """`relu(sum_i weights_i A_i)`: [N, C] and [N, C, h, w] to [N, h, w], in float32 or better."""
    # A batched product: the elementwise one would keep an [N, C, h, w] for each of two backward passes.
    with torch.autocast(activation.device.type, enabled=False):
        collapsed = torch.bmm(single(weights)[:, None], single(activation).flatten(2))
    return torch.relu(collapsed).reshape(len(weights), *activation.shape[2:])
