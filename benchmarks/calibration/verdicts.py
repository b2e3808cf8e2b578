"""Whether what is claimed holds: the methods with the map in their objective against the best of all others.

A baseline is every other method and tool that ran on the same network, format and number of images. "Best" is asked of
each number by itself, so that one row of baselines need not be best in all: the claim is held to the strictest reading.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from calibration.methods import is_claimed

__all__ = ["AGREEMENT_POINTS", "GOAL", "QUICK_RATIO", "Row", "Verdict", "reduction", "verdicts"]

# How much less drift is claimed, how much agreement may be lost, and how long the quick method may take.
GOAL = 0.30
AGREEMENT_POINTS = 0.2
QUICK_RATIO = 3.0
_QUICK = "attribution-quick"


@dataclass(frozen=True)
class Row:
    """One method on one network.

    Attributes:
        network: Name.
        method: Name.
        tool: Of `calibration.methods`.
        number_format: Name.
        images: That calibrated.
        numbers: Of `calibration.scores`; empty where it was not run.
        seconds: Of one calibration, NaN where not run.
        ratio: Seconds over those of our min-max.
        peak_bytes: Beyond what importing took.
        not_run: Why, where it was not.
        facts: What the method says of itself.
        version: Of the tool.
        disagreeing: Places of the held-out images to which another answer is given than the FP32 graph's.
    """

    network: str
    method: str
    tool: str
    number_format: str
    images: int
    numbers: Mapping[str, float]
    seconds: float = math.nan
    ratio: float = math.nan
    peak_bytes: float = math.nan
    not_run: str = ""
    facts: Mapping[str, Any] | None = None
    version: str = ""
    disagreeing: frozenset[int] = frozenset()

    def drift(self, metric: str) -> float:
        """1 - the mean of a metric whose best value is 1."""
        return 1.0 - self.numbers[metric]


@dataclass(frozen=True)
class Verdict:
    """A claimed method on one network, beside the best of all others.

    Attributes:
        network: Name.
        method: Name.
        number_format: Name.
        images: That calibrated.
        cosine: By how much mean (1 - cosine) is below the best baseline's, as a share of it; negative is above.
        iou: The same of mean (1 - top-20 % IoU).
        spearman: The same of mean (1 - Spearman); not claimed.
        agreement: Agreement less the best baseline's, points.
        agreement_error: Standard error of that difference, image by image, points.
        beside: Agreement less that of the baseline whose maps are best, points.
        best_cosine: The baseline with the smallest mean (1 - cosine).
        best_iou: That with the smallest mean (1 - IoU).
        best_agreement: That with the highest agreement.
        ratio: Time over our min-max's.
    """

    network: str
    method: str
    number_format: str
    images: int
    cosine: float
    iou: float
    spearman: float
    agreement: float
    agreement_error: float
    beside: float
    best_cosine: str
    best_iou: str
    best_agreement: str
    ratio: float

    @property
    def misses(self) -> tuple[str, ...]:
        """What of the claim does not hold."""
        found = []
        for name, value in (("1 - cosine", self.cosine), ("1 - IoU", self.iou)):
            if not value >= GOAL:
                found.append(f"{name} {-100 * value:+.0f} %")
        # A difference of exactly the tolerance is within it, however it was rounded.
        if not self.agreement >= -AGREEMENT_POINTS - 1e-9:
            found.append(f"agreement {self.agreement:+.2f} ± {self.agreement_error:.2f} pp")
        if self.method == _QUICK and self.ratio > QUICK_RATIO:
            found.append(f"time {self.ratio:.1f} x min-max")
        return tuple(found)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        return {**asdict(self), "misses": list(self.misses)}


def reduction(ours: float, theirs: float) -> float:
    """The share of `theirs` that `ours` is below it: 0.3 for 0.7 against 1; 0 where both are 0."""
    if theirs == 0:
        return 0.0 if ours == 0 else -math.inf
    return 1.0 - ours / theirs


def _paired_error(row: Row, other: Row) -> float:
    """Standard error of the difference of two shares that were counted on the same images."""
    images = row.numbers["images"]
    lost, won = len(row.disagreeing - other.disagreeing), len(other.disagreeing - row.disagreeing)
    return math.sqrt(max(lost + won - (lost - won) ** 2 / images, 0.0)) / images


def verdicts(rows: Sequence[Row]) -> tuple[Verdict, ...]:
    """One for each claimed method in `rows` that has a baseline beside it."""
    found = []
    for row in rows:
        if is_claimed(row.method) and row.numbers:
            others = [other for other in rows if _beside(row, other)]
            if others:
                found.append(_verdict(row, others))
    return tuple(found)


def _beside(row: Row, other: Row) -> bool:
    same = (row.network, row.number_format, row.images) == (other.network, other.number_format, other.images)
    return same and bool(other.numbers) and not is_claimed(other.method)


def _verdict(row: Row, others: Sequence[Row]) -> Verdict:
    cosine, iou, spearman = (
        min(others, key=lambda other, name=name: other.drift(name)) for name in ("cosine", "iou-top20", "spearman")
    )
    agreement = max(others, key=lambda other: other.numbers["agrees"])
    return Verdict(
        row.network,
        row.method,
        row.number_format,
        row.images,
        cosine=reduction(row.drift("cosine"), cosine.drift("cosine")),
        iou=reduction(row.drift("iou-top20"), iou.drift("iou-top20")),
        spearman=reduction(row.drift("spearman"), spearman.drift("spearman")),
        agreement=100 * (row.numbers["agrees"] - agreement.numbers["agrees"]),
        agreement_error=100 * _paired_error(row, agreement),
        beside=100 * (row.numbers["agrees"] - cosine.numbers["agrees"]),
        best_cosine=cosine.method,
        best_iou=iou.method,
        best_agreement=agreement.method,
        ratio=row.ratio,
    )
