"""What may be said about a precision budget. Free of onnx."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from edgekit.errors import BadInputError
from edgekit.policy.policy import Policy

__all__ = ["BudgetOptions", "Tolerance"]


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


@dataclass(frozen=True)
class Tolerance:
    """What a calibration has to keep, and by what that is judged.

    Attributes:
        policy: What has to hold.
        golden: Folder of a golden set to be judged by; None holds calibration images out and takes the FP32 graph's
            answers.
        costs: A cost table's file (`edgekit.precision.costs`), for engines that do not run here.
        options: How it is done.
    """

    policy: Policy
    golden: Path | None = None
    costs: Path | None = None
    options: BudgetOptions = field(default_factory=BudgetOptions)
