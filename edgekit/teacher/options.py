"""What a recipe may say about the golden set and the maps in it. Free of torch, so that recipes can be read without."""

from __future__ import annotations

from dataclasses import dataclass

from edgekit.attribution.spec import CLASS_CHOICES
from edgekit.errors import BadInputError

__all__ = ["GoldenOptions", "MapOptions"]


@dataclass(frozen=True)
class MapOptions:
    """Which maps an image gets. Teacher, graph and engine share these, so that the maps answer one question.

    Attributes:
        method: Name of the attribution method.
        classes: Maps at each tap, one a class: the best answer, the second best, and so on.
        class_choice: "top" for the best answers; "positive" for those of them whose logit is above zero, with empty
            maps in place of the others, for multi-label networks.
    """

    method: str = "grad-cam"
    classes: int = 1
    class_choice: str = "top"

    def __post_init__(self) -> None:
        if self.classes < 1 or self.class_choice not in CLASS_CHOICES:
            raise BadInputError(
                "A recipe value is out of range: export.classes or export.class_choice.",
                expected="classes of at least 1, class_choice " + " or ".join(CLASS_CHOICES),
                found=f"{self.classes}, {self.class_choice!r}",
            )


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
