"""What a user may say about blame. Free of numpy and onnx, so that a command line can be read without them."""

from __future__ import annotations

from dataclasses import dataclass

from edgekit.errors import BadInputError, UsageError

__all__ = ["METRICS", "ORDERS", "BlameOptions"]

METRICS = ("cosine", "spearman", "iou", "logits", "flips")
"""Measures of drift, each 0 where nothing moved: see `edgekit.calibrate.drift.Drift`."""
ORDERS = ("overall", *METRICS[:-1])
"""What tensors can be ordered by. "overall": the mean of the others, each as a share of the largest drift seen."""


@dataclass(frozen=True)
class BlameOptions:
    """How tensors are blamed and what is made of it.

    Attributes:
        samples: At most this many images, class-balanced; 0 for all. Every tensor costs two runs over them.
        order: One of `ORDERS`.
        exclude_worst: Leave this many of the worst tensors in float; None for no list.
        until: Leave tensors in float, worst first, until this measure's mean is at most this value; None for no list.
        threads: Of the runtime, 0 for its choice.
    """

    samples: int = 128
    order: str = ORDERS[0]
    exclude_worst: int | None = None
    until: tuple[str, float] | None = None
    threads: int = 0

    def __post_init__(self) -> None:
        if self.exclude_worst is not None and self.until is not None:
            raise UsageError("An exclude list is made by number or by drift, not by both.")
        until = self.until or ("cosine", 0.0)
        for holds, what, expected, found in (
            (self.samples >= 0, "samples", "at least 0", self.samples),
            (self.order in ORDERS, "order", " or ".join(ORDERS), self.order),
            (self.exclude_worst is None or self.exclude_worst >= 1, "worst tensors", "at least 1", self.exclude_worst),
            (until[0] in METRICS, "measure of drift", " or ".join(METRICS), until[0]),
            (until[1] >= 0, "drift", "at least 0", until[1]),
        ):
            if not holds:
                raise BadInputError(f"Blame cannot work with this {what}.", expected=expected, found=repr(found))
