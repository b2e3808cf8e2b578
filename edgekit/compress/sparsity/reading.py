"""Masks read back from a network that was made sparse, so that whatever trains it next keeps its zeros."""

from __future__ import annotations

from torch import nn

from edgekit.compress.options import SparsifyOptions
from edgekit.compress.sparsity.masks import Masks
from edgekit.compress.sparsity.two_of_four import is_two_of_four, layers_in_fours
from edgekit.compress.sparsity.weights import sparse_layers
from edgekit.errors import BadInputError

__all__ = ["masks_of"]


def masks_of(model: nn.Module, options: SparsifyOptions) -> Masks:
    """The masks that `options` have left in the weights of `model`; of nothing where the sparsity is 0.

    Args:
        model: A network that was made sparse with `options`, in this process or another.
        options: What was asked for then.

    Raises:
        BadInputError: As `masks_for` does, or the network has fewer zeros than `options` say.
    """
    if options.sparsity == 0:
        return Masks({})
    layers = (layers_in_fours if options.pattern == "2:4" else sparse_layers)(model, options)
    masks = Masks({name: weight.cpu() != 0 for name, weight in layers.parameters().items()}, layers.dense)
    found = _shortfall(masks, options)
    if found is not None:
        raise BadInputError(
            "The network is not as sparse as its recipe says.",
            where="compress.sparsify",
            expected=f"a share of {options.sparsity} zero, in the pattern {options.pattern}",
            found=found,
        )
    return masks


def _shortfall(masks: Masks, options: SparsifyOptions) -> str | None:
    if options.pattern == "2:4":
        lost = [name for name, kept in masks.kept.items() if not is_two_of_four(kept)]
        return "not so in " + ", ".join(lost) if lost else None
    missing = masks.zeros < round(masks.weights * options.sparsity)
    return f"{masks.zeros} of {masks.weights} weights zero" if missing else None
