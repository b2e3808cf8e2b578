"""What a network costs: parameters and multiply-accumulates, counted one way everywhere.

The counting rule: one multiply-accumulate for every weight that meets every value it is applied to, in convolutions
(plain, grouped, transposed) and linear layers, for one image. Biases, normalisation, activations, pooling and additions
are not counted; they are a percent or two of a convolutional network and vanish when an engine fuses them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

__all__ = ["Cost", "measure_cost"]


@dataclass(frozen=True)
class Cost:
    """Parameters (elements of every learnable tensor, each shared one once) and multiply-accumulates per image."""

    parameters: int
    macs: int

    def to_dict(self) -> dict[str, int]:
        """JSON-ready form."""
        return {"parameters": self.parameters, "macs": self.macs}


def measure_cost(model: nn.Module, shape: tuple[int, int, int]) -> Cost:
    """Count by running `model`, which must be in evaluation mode, on one image of zeros of `shape` (C, H, W)."""
    macs = 0

    def count(module: nn.Module, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
        nonlocal macs
        if isinstance(module, nn.Conv2d):
            macs += output.numel() * module.weight[0].numel()
        elif isinstance(module, nn.ConvTranspose2d):
            macs += inputs[0].numel() * module.weight[0].numel()
        elif isinstance(module, nn.Linear):
            macs += output.numel() * module.in_features

    kinds = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)
    handles = [module.register_forward_hook(count) for module in model.modules() if isinstance(module, kinds)]
    reference = next(model.parameters())
    try:
        with torch.no_grad():
            model(torch.zeros(1, *shape, dtype=reference.dtype, device=reference.device))
    finally:
        for handle in handles:
            handle.remove()
    return Cost(parameters=sum(parameter.numel() for parameter in model.parameters()), macs=macs)
