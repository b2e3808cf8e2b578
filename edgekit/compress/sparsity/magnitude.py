"""Unstructured pruning by global magnitude (Han et al. 2015), as Park et al. 2020 use it."""

from __future__ import annotations

import torch
from torch import nn

from edgekit.compress.options import SparsifyOptions
from edgekit.compress.sparsity.masks import Masks
from edgekit.compress.sparsity.patterns import SPARSITY_PATTERNS
from edgekit.compress.sparsity.weights import sparse_layers
from edgekit.errors import BadInputError

__all__ = ["global_magnitude", "masks_for"]


def masks_for(model: nn.Module, options: SparsifyOptions, sparsity: float, *, earlier: Masks | None = None) -> Masks:
    """Masks of the pattern that `options` name.

    Args:
        model: The network; it is not changed (`Masks.apply` does that).
        options: Pattern, and which layers are concerned.
        sparsity: Share of those layers' weights that is to be zero, above 0 and below 1: of a round of several, what
            is to be reached by it.
        earlier: Masks of the round before, which stay masked whatever their weights are now.

    Raises:
        BadInputError: The sparsity is out of range, a pattern of layers matches none, no layer can be made sparse,
            weights are not finite, or a layer would be left without any weight.
    """
    if not 0 < sparsity < 1:
        raise BadInputError("This share of weights cannot be zero.", expected="0 < sparsity < 1", found=repr(sparsity))
    return SPARSITY_PATTERNS.load(options.pattern)(model, options, sparsity, earlier)


def global_magnitude(model: nn.Module, options: SparsifyOptions, sparsity: float, earlier: Masks | None) -> Masks:
    """Of all weights together, the `round(count * sparsity)` of smallest magnitude go.

    Weights that are masked already go first, then by magnitude; of equal ones those that come first in the network.
    A layer that would lose all of its weights is an error and not repaired: keeping some of them would be another
    method, and a network with a dead layer is none that anybody wants.
    """
    layers = sparse_layers(model, options)
    weights = layers.parameters()
    before = {} if earlier is None else earlier.kept
    magnitudes = []
    for name, weight in weights.items():
        magnitude = weight.abs().cpu()
        if name in before:
            magnitude.masked_fill_(~before[name].cpu(), -1.0)
        magnitudes.append(magnitude.flatten())
    together = torch.cat(magnitudes)
    count, masked = round(len(together) * sparsity), int((together < 0).sum())
    if count < max(1, masked):
        raise BadInputError(
            "So few weights cannot be zero.",
            expected=f"at least {max(1, masked)} of {len(together)}" + (", which are masked already" if masked else ""),
            found=f"{count}, a share of {sparsity:.6g}",
            hint="raise compress.sparsify.sparsity, or set it to 0",
        )
    flat = _all_but_smallest(together, count)
    kept_by: dict[str, torch.Tensor] = {}
    for name, weight in weights.items():
        kept_by[name], flat = flat[: weight.numel()].reshape(weight.shape), flat[weight.numel() :]
    dead = [name.removesuffix(".weight") for name, kept in kept_by.items() if not kept.any()]
    if dead:
        raise BadInputError(
            "Layers would be left without any weight.",
            where=", ".join(dead),
            expected="at least one weight in every layer",
            found=f"none at a sparsity of {sparsity:.6g}",
            hint="lower compress.sparsify.sparsity, or add these layers to compress.sparsify.ignore",
        )
    return Masks(kept_by, layers.dense)


def _all_but_smallest(values: torch.Tensor, count: int) -> torch.Tensor:
    """False at the `count` smallest of `values` [N], True elsewhere; of equal ones the first are the smaller."""
    threshold = values.kthvalue(count).values
    gone = values < threshold
    equal = (values == threshold).nonzero().flatten()
    gone[equal[: count - int(gone.sum())]] = True
    return ~gone
