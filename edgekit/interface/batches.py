"""Any number of images through a graph that takes one number of them."""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

__all__ = ["batch_places", "filled"]

Scalar = TypeVar("Scalar", bound=np.generic)


def batch_places(count: int, batch: int | None) -> list[slice]:
    """Where each run's images lie among `count`: all in one run where the batch is free, else `batch` at a time."""
    if batch is None:
        return [slice(0, count)]
    return [slice(start, min(start + batch, count)) for start in range(0, count, batch)]


def filled(rows: npt.NDArray[Scalar], batch: int | None) -> npt.NDArray[Scalar]:
    """The rows, with the last one again until there are `batch`; as they are where the batch is free.

    Args:
        rows: Anything with at least one row.
        batch: At least as many as there are rows, or None.
    """
    if batch is None or len(rows) == batch:
        return rows
    places: npt.NDArray[Any] = np.minimum(np.arange(batch), len(rows) - 1)
    repeated: npt.NDArray[Scalar] = rows[places]
    return repeated
