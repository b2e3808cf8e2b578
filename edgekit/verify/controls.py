"""Controls: answers that no policy may let pass. A gate that passes one of them cannot tell an engine from nonsense.

A control is a table of scores, made beside the engine's own by the verification and stored with it, so that a gate
can hold any policy against it later.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from edgekit.metrics.scores import ScoreTable
from edgekit.policy.context import NOTHING_BESIDE, Context
from edgekit.policy.policy import Policy
from edgekit.policy.verdict import Verdict, judge

__all__ = ["ControlResult", "ControlsState", "StoredControls", "judge_controls"]

# "absent": the evidence is from before controls, or of a golden set without what they need. "off": switched off by
# whoever verified.
ControlsState: TypeAlias = Literal["ran", "off", "absent"]


@dataclass(frozen=True)
class StoredControls:
    """The controls of one verification.

    Attributes:
        state: Whether they ran.
        tables: Name of a control to its scores; empty unless they ran.
    """

    state: ControlsState = "absent"
    tables: Mapping[str, ScoreTable] = field(default_factory=dict)


@dataclass(frozen=True)
class ControlResult:
    """What a policy says about one control.

    Attributes:
        name: Such as "permuted-maps".
        verdict: Of the policy that judges the engine.
    """

    name: str
    verdict: Verdict

    @property
    def caught(self) -> bool:
        """The policy fails it. One it is merely not sure about is not caught."""
        return self.verdict.outcome == "fail"

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        return {"name": self.name, "caught": self.caught, "outcome": self.verdict.outcome}


def judge_controls(
    policy: Policy, controls: StoredControls, context: Context = NOTHING_BESIDE
) -> tuple[ControlResult, ...]:
    """Hold a policy against every control, sorted by name."""
    return tuple(ControlResult(name, judge(policy, controls.tables[name], context)) for name in sorted(controls.tables))
