"""What a calibrator answers: ranges, and whatever else it decided."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from edgekit.calibrate.adjustments import NO_ADJUSTMENTS, Adjustments
from edgekit.calibrate.formats import Range
from edgekit.calibrate.tensor_stats import TensorStats
from edgekit.core.canonical import JsonValue

__all__ = ["Solution"]


@dataclass(frozen=True)
class Solution:
    """How a graph is to be quantised.

    Attributes:
        ranges: A range for each tensor of `placement.observed`, where the placement is that of the adjusted graph.
        weight_scales: Scales of a weight along its output channels, where they are not to follow from its largest
            magnitudes.
        adjustments: What is changed before rounding.
        statistics: What the ranges were chosen from, by tensor, for reports.
        facts: What the stage's record should say about the method, JSON-ready.
    """

    ranges: Mapping[str, Range]
    weight_scales: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    adjustments: Adjustments = NO_ADJUSTMENTS
    statistics: Mapping[str, TensorStats] = field(default_factory=dict)
    facts: Mapping[str, JsonValue] = field(default_factory=dict)
