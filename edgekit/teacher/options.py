"""What a recipe may say about the golden set. Free of torch, so that recipes can be read without it."""

from __future__ import annotations

from dataclasses import dataclass

from edgekit.errors import BadInputError

__all__ = ["GoldenOptions"]


@dataclass(frozen=True)
class GoldenOptions:
    """How the golden set is drawn.

    Attributes:
        samples: At most this many of the held-out images, class-balanced; 0 for all. A verdict with 95 % confidence
            on a share of 95 % needs 59 samples even when every one of them holds.
        max_corrupt_share: Share of the folder's images that may be unreadable before the stage stops, 0 to under 1.
    """

    samples: int = 256
    max_corrupt_share: float = 0.01

    def __post_init__(self) -> None:
        for holds, what, expected, found in (
            (self.samples >= 0, "samples", "at least 0", self.samples),
            (0 <= self.max_corrupt_share < 1, "max_corrupt_share", "0 <= share < 1", self.max_corrupt_share),
        ):
            if not holds:
                raise BadInputError(
                    f"A recipe value is out of range: golden.{what}.", expected=expected, found=repr(found)
                )
