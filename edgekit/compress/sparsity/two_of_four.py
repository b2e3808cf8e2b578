"""2:4 sparsity, which sparse tensor cores are twice as fast with (Mishra et al. 2021).

TensorRT takes a convolution's weights as 2:4 sparse where, for each output channel and each cell of the kernel, two of
every four consecutive input channels are zero (TensorRT developer guide, "Structured Sparsity").
"""

from __future__ import annotations

import torch
from torch import nn

from edgekit.compress.options import SparsifyOptions
from edgekit.compress.sparsity.masks import Masks
from edgekit.compress.sparsity.weights import TRANSPOSED, SparseLayers, sparse_layers
from edgekit.errors import BadInputError

__all__ = ["is_two_of_four", "layers_in_fours", "two_of_four"]


def two_of_four(model: nn.Module, options: SparsifyOptions, sparsity: float, earlier: Masks | None) -> Masks:
    """Of every four consecutive inputs of an output channel, the two weights of smaller magnitude go.

    Of equal ones the later go. Layers whose inputs to an output channel are no multiple of four stay dense, as the
    first convolution and depthwise ones do, and so do transposed convolutions; `Masks.dense` names them.

    Raises:
        BadInputError: The sparsity is not a half, or as `layers_in_fours` does.
    """
    if sparsity != 0.5:
        raise BadInputError(
            "The pattern 2:4 makes half of the weights zero.", expected="a sparsity of 0.5", found=repr(sparsity)
        )
    kept: dict[str, torch.Tensor] = {}
    layers = layers_in_fours(model, options)
    for name, weight in layers.parameters().items():
        kept[name] = _two_largest_of_four(weight.cpu())
        if earlier is not None and name in earlier.kept:
            kept[name] &= earlier.kept[name].cpu()
    return Masks(kept, layers.dense)


def layers_in_fours(model: nn.Module, options: SparsifyOptions) -> SparseLayers:
    """The layers that can be made 2:4 sparse, and the reasons for the others.

    Raises:
        BadInputError: There are none, or as `sparse_layers` does.
    """
    layers = sparse_layers(model, options)
    reasons = {name: _reason_to_stay_dense(module) for name, module in layers.weights.items()}
    weights = {name: module for name, module in layers.weights.items() if reasons[name] is None}
    dense = {name.removesuffix(".weight"): reason for name, reason in reasons.items() if reason is not None}
    if not weights:
        raise BadInputError(
            "No layer of the network can be made 2:4 sparse.",
            expected="a convolution with a multiple of 4 inputs to each output channel",
            found="; ".join(f"{name}: {reason}" for name, reason in dense.items()),
            hint="set compress.sparsify.sparsity to 0, or round pruned channels: compress.prune.round_to 4",
        )
    return SparseLayers(weights, {**layers.dense, **dense})


def is_two_of_four(weight: torch.Tensor) -> bool:
    """Whether a weight [out, in, ...] has at least two zeros in every four consecutive inputs."""
    if weight.shape[1] % 4:
        return False
    return bool(((_in_fours(weight) == 0).sum(dim=-1) >= 2).all())


def _reason_to_stay_dense(module: nn.Module) -> str | None:
    if isinstance(module, TRANSPOSED):
        return "it is a transposed convolution"
    inputs = module.get_parameter("weight").shape[1]
    return f"it has {inputs} inputs to each output channel, no multiple of 4" if inputs % 4 else None


def _two_largest_of_four(weight: torch.Tensor) -> torch.Tensor:
    """Bool, shaped as the weight [out, in, ...]: True at the two largest magnitudes of every four inputs."""
    fours = _in_fours(weight.abs())
    largest = fours.argsort(dim=-1, descending=True, stable=True)[..., :2]
    kept = torch.zeros_like(fours, dtype=torch.bool).scatter_(-1, largest, True)
    return kept.flatten(-2).movedim(-1, 1).contiguous()


def _in_fours(weight: torch.Tensor) -> torch.Tensor:
    """[out, in, ...] as [out, ..., in / 4, 4]."""
    inputs_last = weight.movedim(1, -1)
    return inputs_last.reshape(*inputs_last.shape[:-1], -1, 4)
