"""Which weights of a network may be made sparse: those of convolutions, and of linear layers where asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import nn

from edgekit.compress.globs import check_patterns, matches
from edgekit.compress.options import SparsifyOptions
from edgekit.errors import BadInputError

__all__ = ["CONVOLUTIONS", "TRANSPOSED", "SparseLayers", "sparse_layers"]

TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, *TRANSPOSED)


@dataclass(frozen=True)
class SparseLayers:
    """Where zeros may be put.

    Attributes:
        weights: Parameter name to the layer it belongs to, in the order of the network; a weight that several layers
            share is there once.
        dense: Name of every other convolution and linear layer to the reason it stays dense.
    """

    weights: Mapping[str, nn.Module]
    dense: Mapping[str, str]

    def parameters(self) -> dict[str, torch.Tensor]:
        """The weights themselves, detached."""
        return {name: module.get_parameter("weight").detach() for name, module in self.weights.items()}


def sparse_layers(model: nn.Module, options: SparsifyOptions) -> SparseLayers:
    """Sort the layers of `model` by what `options` lets be made sparse.

    Depthwise convolutions are convolutions like all others.

    Raises:
        BadInputError: A pattern matches no module, no layer is left, or a weight is not finite.
    """
    check_patterns(model, options.ignore, "compress.sparsify.ignore")
    weights: dict[str, nn.Module] = {}
    dense: dict[str, str] = {}
    seen: set[nn.Parameter] = set()
    for name, module in model.named_modules():
        if not isinstance(module, (*CONVOLUTIONS, nn.Linear)):
            continue
        weight = module._parameters.get("weight")
        if matches(name, options.ignore):
            dense[name] = "it is to be ignored"
        elif isinstance(module, nn.Linear) and not options.linear:
            dense[name] = "it is linear, and compress.sparsify.linear is off"
        elif weight is None:
            dense[name] = "its weight is fixed"
        elif weight not in seen:
            seen.add(weight)
            weights[f"{name}.weight" if name else "weight"] = module
    if not weights:
        raise BadInputError(
            "No weight of the network can be made sparse.",
            expected="a convolution with weights that are learned" + (" or a linear layer" if options.linear else ""),
            found="; ".join(f"{name}: {reason}" for name, reason in dense.items()) or "none",
            hint="set compress.sparsify.sparsity to 0, or change compress.sparsify.ignore or linear",
        )
    broken = [name for name, module in weights.items() if not torch.isfinite(module.get_parameter("weight")).all()]
    if broken:
        raise BadInputError("Weights that are not finite have no magnitude to go by.", where=", ".join(broken))
    return SparseLayers(weights, dense)
