"""What must hold for an array before it may be called a stack of maps."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from edgekit.attribution.spec import MapSpec
from edgekit.errors import IntegrityError

__all__ = ["check_maps"]


def check_maps(maps: npt.NDArray[Any], spec: MapSpec, *, where: str = "attribution") -> None:
    """Check that an engine's or a teacher's output is what its specification says.

    Values that are not finite pass on purpose: they are a matter of quality, counted and judged as samples with the
    state "non_finite".

    Args:
        maps: The output, expected to be float32 [N, spec.height, spec.width].
        spec: What the output claims to be.
        where: Named in the message.

    Raises:
        IntegrityError: Another dtype or shape, or negative values from a method that ends in a ReLU: whatever made
            this array did not compute that map.
    """
    if maps.dtype != np.float32 or maps.ndim != 3 or maps.shape[1:] != (spec.height, spec.width):
        raise IntegrityError(
            "An attribution output is not a stack of the specified maps.",
            where=where,
            expected=f"float32 [N, {spec.height}, {spec.width}]",
            found=f"{maps.dtype} {list(maps.shape)}",
        )
    if spec.nonnegative and (maps < 0).any():
        raise IntegrityError(
            f"Maps of the method {spec.method!r} hold negative values.",
            where=where,
            expected="values of at least 0, since the method ends in a ReLU",
            found=f"{int((maps < 0).any(axis=(1, 2)).sum())} of {len(maps)} maps with a negative value",
        )
