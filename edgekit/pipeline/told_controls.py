"""Controls as a report tells them: names, outcomes and the demands that catch each, without their scores."""

from __future__ import annotations

from collections.abc import Iterable

from edgekit.report.data import ControlSummary
from edgekit.verify.controls import ControlResult

__all__ = ["control_summaries"]


def control_summaries(results: Iterable[ControlResult]) -> tuple[ControlSummary, ...]:
    """What `judge_controls` found, in its order."""
    return tuple(
        ControlSummary(
            control.name,
            control.verdict.outcome,
            tuple(result.text for result in control.verdict.clauses if result.outcome == "fail"),
        )
        for control in results
    )
