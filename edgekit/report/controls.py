"""What the policy makes of nonsense: the controls that were verified beside the engine."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from edgekit.report.data import ReportData

__all__ = ["describe_controls"]

_WORDS: Mapping[str, str] = MappingProxyType(
    {
        "random-weights": "The teacher's network with weights that were drawn, never trained.",
        "permuted-maps": "The engine's own answers, with the maps of other images.",
        "centre-prior": "The engine's own answers, with one blob in the middle of every image for a map.",
    }
)
_STATES: Mapping[str, str] = MappingProxyType(
    {
        "ran": "Answers that no policy may let pass were judged by the very policy that judges the engine.",
        "off": "Whoever verified this engine switched the controls off, so nothing shows that the policy can fail.",
        "absent": "No controls were verified with this engine, so nothing shows that the policy can fail.",
    }
)


def describe_controls(data: ReportData) -> dict[str, Any]:
    """State and results, JSON-ready.

    Returns:
        "state", "words" (what the state means), "too_weak" (names of the controls that the policy does not fail) and
        "rows": name, words (empty for a control that is not known here), caught, outcome, failed (demands that catch
        it, in words).
    """
    rows = [
        {
            "name": control.name,
            "words": _WORDS.get(control.name, ""),
            "caught": control.caught,
            "outcome": control.outcome,
            "failed": list(control.failed),
        }
        for control in data.controls
    ]
    return {
        "state": data.controls_state,
        "words": _STATES[data.controls_state],
        "too_weak": [row["name"] for row in rows if not row["caught"]],
        "rows": rows,
    }
