"""The known patterns of zeros."""

from __future__ import annotations

from typing import Protocol

from torch import nn

from edgekit.compress.options import SparsifyOptions
from edgekit.compress.sparsity.masks import Masks
from edgekit.core.registry import Registry

__all__ = ["SPARSITY_PATTERNS", "SparsityPattern"]


class SparsityPattern(Protocol):
    """A way to choose the weights that go."""

    def __call__(self, model: nn.Module, options: SparsifyOptions, sparsity: float, earlier: Masks | None, /) -> Masks:
        """Masks on the CPU; `model` is not changed. What `earlier` masks is masked again.

        Raises:
            BadInputError: The weights cannot be made as sparse as that.
        """


SPARSITY_PATTERNS: Registry[SparsityPattern] = Registry(
    "pattern of sparsity",
    {
        "unstructured": "edgekit.compress.sparsity.magnitude:global_magnitude",
        "2:4": "edgekit.compress.sparsity.two_of_four:two_of_four",
    },
)
