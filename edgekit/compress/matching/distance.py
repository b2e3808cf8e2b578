"""How far two maps are apart, once each is divided by its L2 norm.

Park et al. 2020, by their released code, average the squared difference over the cells of the map, which is always
7 x 7 there:

    L = 1/N sum_n |M_T / |M_T| - M_S / |M_S||^2 / 49

We keep the 49 whatever the size of the map, so that a sample's term is `2 (1 - cosine) / 49` everywhere: beta = 100 is
the paper's beta = 100 at 7 x 7, and means the same at any other size, a cosine loss of weight 200 / 49 = 4.08. The
released code's own term at h x w is `49 / (h w)` of ours, so its beta at another size is `beta * h w / 49` of ours.

`cosine` is `1 - cosine` outright, as in e2KD (Parchami-Araghi et al., ECCV 2024): the same gradient at `2 beta / 49`.

Maps that are zero (norm at most `EPSILON`):
    The teacher's is: there is nothing to match, and the map adds nothing. N still counts it. The released code adds the
        constant 1 / 49 for it, which has no gradient, so the gradients are the same.
    The student's alone is: the map adds a constant, 1 / 49 as in the released code, or 1 with `cosine` as in e2KD, and
        no gradient; a student whose evidence is all negative cannot be pulled back by its map, only by its answers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import torch

from edgekit.errors import BadInputError

__all__ = ["EPSILON", "REFERENCE_CELLS", "MapDistances", "map_distances"]

# Cells of the map in the paper's experiments; see the module's docstring.
REFERENCE_CELLS = 49
EPSILON = 1e-12


@dataclass(frozen=True)
class MapDistances:
    """Distances of pairs of maps.

    Attributes:
        each: [maps], differentiable; 0 where the teacher's map is zero.
        teacher_zero: bool [maps].
        student_zero: bool [maps].
    """

    each: torch.Tensor
    teacher_zero: torch.Tensor
    student_zero: torch.Tensor


def _squared_l2(theirs: torch.Tensor, ours: torch.Tensor) -> torch.Tensor:
    return (theirs - ours).square().sum(dim=1) / REFERENCE_CELLS


def _cosine(theirs: torch.Tensor, ours: torch.Tensor) -> torch.Tensor:
    return 1 - (theirs * ours).sum(dim=1)


# Rows of unit length (or zero) to one number a row.
_DISTANCES: Mapping[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = MappingProxyType(
    {"squared-l2": _squared_l2, "cosine": _cosine}
)


def map_distances(reference: torch.Tensor, own: torch.Tensor, distance: str = "squared-l2") -> MapDistances:
    """The distance of each pair of maps; zero maps as the module says.

    Args:
        reference: The teacher's maps [maps, h, w], detached.
        own: The student's maps [maps, h, w].
        distance: One of `edgekit.compress.options.DISTANCES`.

    Raises:
        BadInputError: The maps differ in size.
    """
    if reference.shape != own.shape:
        raise BadInputError(
            "Teacher and student have maps of different sizes, which cannot be matched.",
            expected=f"the teacher's {list(reference.shape[1:])}",
            found=f"the student's {list(own.shape[1:])}",
            hint="choose taps where both have the same resolution, or set compress.matching.loss to none",
        )
    theirs, their_blank = _unit(reference.flatten(1))
    ours, our_blank = _unit(own.flatten(1))
    each = _DISTANCES[distance](theirs, ours)
    return MapDistances(each.masked_fill(their_blank, 0), their_blank, our_blank)


def _unit(rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows divided by their L2 norm, and which rows are blank; those become zero and pass no gradient."""
    norm = rows.norm(dim=1, keepdim=True)
    blank = norm <= EPSILON
    # Divided by one rather than clamped: a clamped norm would multiply the gradient of a blank row by 1 / EPSILON.
    return (rows / norm.masked_fill(blank, 1)).masked_fill(blank, 0), blank[:, 0]
