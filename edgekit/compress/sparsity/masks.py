"""Masks: weights that are zero, and stay zero to the bit whatever an optimiser does.

Nothing beside the weights is stored: a mask is where the weights are zero, and can be read back from any checkpoint.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from edgekit.errors import BadInputError, DefectError

__all__ = ["Masks", "zero_masks"]


@dataclass(frozen=True, eq=False)
class Masks:
    """Which weights live. A `Constraint` of training.

    Attributes:
        kept: Parameter name to a bool tensor of the parameter's shape, False where the weight is held at zero.
        dense: Name of each layer that was left dense to the reason.
    """

    kept: Mapping[str, torch.Tensor]
    dense: Mapping[str, str] = field(default_factory=dict)
    # The complements, on the device of the weights: asked for after every step.
    _gone: dict[tuple[str, torch.device], torch.Tensor] = field(default_factory=dict, init=False, repr=False)

    def apply(self, student: nn.Module) -> None:
        """Put +0.0 wherever a weight of `student` is masked, in place and without a graph.

        Put, not multiplied: a product would leave -0.0 behind, and NaN where a weight has become infinite.

        Raises:
            BadInputError: A parameter is missing or of another shape.
        """
        with torch.no_grad():
            for name, kept in self.kept.items():
                parameter = _parameter(student, name, kept)
                key = (name, parameter.device)
                if key not in self._gone:
                    self._gone[key] = kept.logical_not().to(parameter.device)
                parameter.masked_fill_(self._gone[key], 0.0)

    def check(self, model: nn.Module) -> None:
        """Raise unless every masked weight of `model` is exactly zero.

        Raises:
            BadInputError: A parameter is missing or of another shape.
            DefectError: A masked weight is not zero.
        """
        wrong = {
            name: count
            for name, kept in self.kept.items()
            if (count := int((_parameter(model, name, kept).detach()[~kept] != 0).sum()))
        }
        if wrong:
            raise DefectError(
                "Weights that are masked are not zero.",
                where=", ".join(wrong),
                expected="every masked weight exactly 0.0",
                found=", ".join(f"{count} others in {name}" for name, count in wrong.items()),
            )

    @property
    def weights(self) -> int:
        """How many weights the masked layers have."""
        return sum(kept.numel() for kept in self.kept.values())

    @property
    def zeros(self) -> int:
        """How many of them are held at zero."""
        return sum(_zeros(kept) for kept in self.kept.values())

    def sparsity(self) -> float:
        """Share of the masked layers' weights that are zero, 0 to 1; 0 where there are none."""
        return self.zeros / self.weights if self.kept else 0.0

    def layer_sparsities(self) -> dict[str, float]:
        """Parameter name to the share of its weights that are zero."""
        return {name: _zeros(kept) / kept.numel() for name, kept in self.kept.items()}

    def to_dict(self) -> dict[str, Any]:
        """What was masked, JSON-ready and without the masks themselves."""
        return {
            "weights": self.weights,
            "zeros": self.zeros,
            "sparsity": self.sparsity(),
            "layers": self.layer_sparsities(),
            "dense": dict(self.dense),
        }


def zero_masks(parameters: Mapping[str, torch.Tensor]) -> Masks:
    """Masks that hold every weight at zero that is zero now, as in another form of a network that was made sparse.

    A parameter without any zero is left out.
    """
    return Masks({name: weight.detach().cpu() != 0 for name, weight in parameters.items() if bool((weight == 0).any())})


def _zeros(kept: torch.Tensor) -> int:
    return kept.numel() - int(kept.sum())


def _parameter(model: nn.Module, name: str, kept: torch.Tensor) -> nn.Parameter:
    try:
        parameter = model.get_parameter(name)
    except AttributeError as cause:
        raise BadInputError("A mask is about a weight that the network does not have.", where=name) from cause
    if parameter.shape != kept.shape:
        raise BadInputError(
            "A mask does not fit the network's weight.",
            where=name,
            expected=str(list(parameter.shape)),
            found=str(list(kept.shape)),
            hint="prune channels before weights are made sparse",
        )
    return parameter
