"""What a recipe may say about verification, and about which candidate ships."""

from __future__ import annotations

from dataclasses import dataclass

from edgekit.errors import BadInputError

__all__ = ["SelectOptions", "VerifyOptions"]


@dataclass(frozen=True)
class VerifyOptions:
    """How engines are verified.

    Attributes:
        controls: Whether random weights, permuted maps and a centre prior are scored beside every engine, so that a
            policy that passes one of them is found out. That they were switched off shows wherever the verdict does.
    """

    controls: bool = True


@dataclass(frozen=True)
class SelectOptions:
    """When INT8 or FP16 is worth shipping; where neither is, the student's FP32 engine ships, and the report says why.

    Each is held against FP32 on the same engine. Where both are worth it, the faster of the two is taken.

    Attributes:
        max_accuracy_drop: Largest accepted loss of INT8 or FP16 against the same student in FP32, as a share of the
            golden set's labelled samples (of agreement with the teacher where nothing is labelled), 0 to 1.
        max_latency_ratio: Largest accepted median latency of INT8 or FP16 over that of FP32, batch 1, above 0. At 1
            what is slower does not ship.
        latency_runs: Timed runs of each engine, after as many again for warming up, at least 5.
    """

    max_accuracy_drop: float = 0.01
    max_latency_ratio: float = 1.0
    latency_runs: int = 50

    def __post_init__(self) -> None:
        for holds, what, expected, found in (
            (0 <= self.max_accuracy_drop <= 1, "max_accuracy_drop", "0 to 1", self.max_accuracy_drop),
            (self.max_latency_ratio > 0, "max_latency_ratio", "above 0", self.max_latency_ratio),
            (self.latency_runs >= 5, "latency_runs", "at least 5", self.latency_runs),
        ):
            if not holds:
                raise BadInputError(
                    f"A recipe value is out of range: select.{what}.", expected=expected, found=repr(found)
                )
