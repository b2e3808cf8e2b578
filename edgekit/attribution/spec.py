"""The specification of a map: enough to know that two maps answer the same question."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from edgekit.errors import IntegrityError

__all__ = ["OWN_CLASS", "MapSpec"]

# Value of the `class_index` input that asks the engine to explain its own top-1 answer.
OWN_CLASS = -1


@dataclass(frozen=True)
class MapSpec:
    """What the engine's `attribution` output means.

    Attributes:
        method: Name of the attribution method, such as "grad-cam".
        tap: Dotted name of the module whose output the map lives on.
        height: Rows of the raw map; it is never rescaled in the graph.
        width: Columns of the raw map.
        nonnegative: True where the method ends in a ReLU.
    """

    method: str
    tap: str
    height: int
    width: int
    nonnegative: bool = True

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        return dict(vars(self))

    @classmethod
    def from_dict(cls, raw: Any, *, where: str) -> MapSpec:
        """Read a stored specification. Raises `IntegrityError` when it is malformed."""
        try:
            spec = cls(**raw)
        except TypeError as cause:
            raise IntegrityError("A map specification is malformed.", where=where, found=str(cause)) from cause
        sizes_hold = all(isinstance(side, int) and 0 < side <= 4096 for side in (spec.height, spec.width))
        if not (sizes_hold and isinstance(spec.method, str) and isinstance(spec.tap, str)):
            raise IntegrityError("A map specification is malformed.", where=where, found=repr(raw))
        return spec
