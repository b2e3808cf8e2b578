"""What a network costs: parameters and multiply-accumulates, counted one way everywhere.

The counting rule: one multiply-accumulate for every weight that meets every value it is applied to, in convolutions
(plain, grouped, transposed) and linear layers, for one image. Biases, normalisation, activations, pooling and additions
are not counted; they are a percent or two of a convolutional network and vanish when an engine fuses them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import fx, nn

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
    parameters = sum(parameter.numel() for parameter in model.parameters())
    if isinstance(model, fx.GraphModule):
        counter = _GraphCounter(model)
        with torch.no_grad():
            counter.run(torch.zeros(1, *shape))
        return Cost(parameters, counter.macs)
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
    return Cost(parameters, macs)


class _GraphCounter(fx.Interpreter):
    """The same rule for a graph of operations, which has no modules to look at."""

    macs = 0

    def call_function(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        output = super().call_function(target, args, kwargs)
        kind = getattr(target, "_opname", "")
        if kind.startswith("conv_transpose") or (kind in ("convolution", "_convolution") and args[6]):
            self.macs += args[0].numel() * args[1][0].numel()
        elif kind in ("conv1d", "conv2d", "convolution", "_convolution", "linear"):
            self.macs += output.numel() * args[1][0].numel()
        elif kind == "addmm":
            self.macs += output.numel() * args[1].shape[1]
        return output
