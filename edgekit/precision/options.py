"""What may be said about a precision budget. Free of onnx."""

from __future__ import annotations

from dataclasses import dataclass

from edgekit.errors import BadInputError

__all__ = ["BudgetOptions"]


@dataclass(frozen=True)
class BudgetOptions:
    """How assignments are judged and timed.

    Attributes:
        latency_runs: Timed runs of each candidate; 0 measures no latency.
        ranking_images: Calibration images on which operations are ranked, at most.
        timed: Candidates that are timed beside each other, at most; FP32 and full INT8 are always among them.
    """

    latency_runs: int = 50
    ranking_images: int = 64
    timed: int = 6

    def __post_init__(self) -> None:
        for name, least in (("latency_runs", 0), ("ranking_images", 1), ("timed", 3)):
            if getattr(self, name) < least:
                raise BadInputError(
                    f"An option of the precision budget is out of range: {name}.",
                    expected=f"at least {least}",
                    found=repr(getattr(self, name)),
                )
