"""What competes in a build: each precision on each engine, and the names that these pairs go by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edgekit.targets.target import Target

__all__ = ["HALF_ENGINES", "PRECISIONS", "CandidateId", "candidates_of", "float_partner"]

PRECISIONS = ("int8", "fp16", "fp32")
"""The preferred first."""

HALF_ENGINES = ("tensorrt", "ort-cuda", "ort-tensorrt")
"""Engines that compute in FP16. A processor's would only convert back and forth."""


@dataclass(frozen=True)
class CandidateId:
    """One candidate.

    Attributes:
        name: What folders, tables and evidence call it: "int8", or "int8-openvino".
        engine: Registry name of the engine.
        precision: "int8", "fp16" or "fp32".
    """

    name: str
    engine: str
    precision: str


def candidates_of(target: Target, engines: Sequence[str], *, half: bool) -> tuple[CandidateId, ...]:
    """Every precision on every one of these engines, the preferred first.

    Args:
        target: The target.
        engines: Registry names.
        half: There is a graph with FP16 types, so that engines which compute in FP16 have such a candidate.

    Those on the target's preferred engine go by their precision alone, whichever engines are here besides: what was
    built is found again after another runtime was installed.
    """
    return tuple(
        CandidateId(precision if engine == target.engines[0] else f"{precision}-{engine}", engine, precision)
        for engine in engines
        for precision in PRECISIONS
        if precision != "fp16" or (half and engine in HALF_ENGINES)
    )


def float_partner(candidate: CandidateId, candidates: Sequence[CandidateId]) -> CandidateId:
    """The FP32 candidate on the same engine, which INT8 and FP16 are measured against."""
    return next(item for item in candidates if item.engine == candidate.engine and item.precision == "fp32")
