"""Controls: answers that no policy may let pass. A gate that passes one of them cannot tell an engine from nonsense.

A control is a table of scores, made beside the engine's own by the verification and stored with it, so that a gate
can hold any policy against it later.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from edgekit.metrics.scores import ScoreTable
from edgekit.policy.document import load_preset, preset_names
from edgekit.policy.evaluate import evaluate_clause
from edgekit.policy.policy import Policy
from edgekit.policy.verdict import Verdict, judge

__all__ = [
    "CENTRE_PRIOR",
    "CONTROLS",
    "PERMUTED_MAPS",
    "RANDOM_WEIGHTS",
    "ControlResult",
    "ControlsState",
    "StoredControls",
    "judge_controls",
]

RANDOM_WEIGHTS = "random-weights"
PERMUTED_MAPS = "permuted-maps"
CENTRE_PRIOR = "centre-prior"
CONTROLS = (CENTRE_PRIOR, PERMUTED_MAPS, RANDOM_WEIGHTS)
"""Names of all controls, sorted; `edgekit.verify.control_scores` says what they are."""

# "absent": the evidence is from before controls. "off": switched off by whoever verified.
ControlsState: TypeAlias = Literal["ran", "off", "absent"]

_REMARKS = {
    CENTRE_PRIOR: "the objects may all stand in the middle of these images, where a blob finds them too",
    PERMUTED_MAPS: "it looks at the answers and not at which image a map belongs to",
    RANDOM_WEIGHTS: "it asks nothing that a network has to have learnt",
}


@dataclass(frozen=True)
class StoredControls:
    """The controls of one verification.

    Attributes:
        state: Whether they ran.
        tables: Name of a control to its scores; empty unless they ran.
        missing: Name of a control that could not be made, although they ran, to the reason.
    """

    state: ControlsState = "absent"
    tables: Mapping[str, ScoreTable] = field(default_factory=dict)
    missing: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class ControlResult:
    """What a policy says about one control.

    Attributes:
        name: Such as "permuted-maps".
        verdict: Of the policy that judges the engine.
        catching: For one that is not caught: clauses of the presets, in words, that fail it.
    """

    name: str
    verdict: Verdict
    catching: tuple[str, ...] = ()

    @property
    def caught(self) -> bool:
        """The policy fails it. One it is merely not sure about is not caught."""
        return self.verdict.outcome == "fail"

    @property
    def remark(self) -> str:
        """What it may mean, in words, that the policy does not fail it; empty where it does."""
        return "" if self.caught else _REMARKS.get(self.name, "")

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        return {
            "name": self.name,
            "caught": self.caught,
            "outcome": self.verdict.outcome,
            "remark": self.remark,
            "catching": list(self.catching),
        }


def judge_controls(policy: Policy, controls: StoredControls) -> tuple[ControlResult, ...]:
    """Hold a policy against every control, sorted by name.

    Nothing stands beside a control's scores: that the engine is slow, or that there is an older release, must not be
    what fails it.
    """
    return tuple(_judged(policy, name, controls.tables[name]) for name in sorted(controls.tables))


def _judged(policy: Policy, name: str, table: ScoreTable) -> ControlResult:
    verdict = judge(policy, table)
    return ControlResult(name, verdict, () if verdict.outcome == "fail" else _catching(policy, table))


def _catching(policy: Policy, table: ScoreTable) -> tuple[str, ...]:
    """The clauses of the presets that fail a control, each demand once: the mildest first."""
    found: dict[tuple[str, ...], str] = {}
    for preset in (load_preset(name) for name in ("lenient", "default", "strict") if name in preset_names()):
        for clause in preset.clauses:
            if clause in policy.clauses:
                continue
            result = evaluate_clause(clause, preset, table)
            kind = (clause.kind, str(getattr(clause, "metric", "")), str(getattr(clause, "view", "")))
            if result.outcome == "fail":
                found.setdefault(kind, result.text)
    return tuple(found.values())
