"""One judged bundle: what every format tells of, read once. Nothing is rendered here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgekit.bundle.manifest import Manifest
from edgekit.bundle.open import Bundle
from edgekit.ci.changes import Changes, changes_since
from edgekit.ci.clause_view import clause_column, clause_identities
from edgekit.ci.pairing import Scored, scored
from edgekit.policy.policy import Policy
from edgekit.policy.result import ClauseResult
from edgekit.verify.controls import ControlResult
from edgekit.verify.gate import GateResult, bundle_baseline, bundle_notice, gate

__all__ = ["GateReport", "Group", "JudgedClause", "Sample", "gate_report"]


@dataclass(frozen=True)
class Sample:
    """One golden sample that speaks against a clause.

    Attributes:
        name: Relative file name of the image. Foreign text.
        digest: SHA-256 of its pixels.
        value: What the clause's metric says of it; None where the clause is about no metric, or both maps are zero.
    """

    name: str
    digest: str
    value: float | None

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        return {"name": self.name, "sha256": self.digest, "value": self.value}


@dataclass(frozen=True)
class Group:
    """One class of a clause that every class has to hold.

    Attributes:
        name: The class's name where the clause's result gives its index, else what it gives. Foreign text.
        outcome: As of a clause.
        observed: What was found; None where nothing was.
        lower: Confidence bound of it, or None.
        upper: Confidence bound of it, or None.
        samples: Samples it was found in.
    """

    name: str
    outcome: str
    observed: float | None
    lower: float | None
    upper: float | None
    samples: int


@dataclass(frozen=True)
class JudgedClause:
    """A clause's result, with names for what it points at.

    Attributes:
        identity: "share/cosine": kind, and metric where there is one; the second of a kind ends in "-2". Stable as
            long as the policy is, so that CI systems can follow a clause from run to run.
        result: The result.
        worst: The samples that speak against it most, worst first.
        groups: Of a clause over classes, each class.
    """

    identity: str
    result: ClauseResult
    worst: tuple[Sample, ...]
    groups: tuple[Group, ...] = ()

    @property
    def open_groups(self) -> tuple[Group, ...]:
        """The classes that do not hold."""
        return tuple(group for group in self.groups if group.outcome in ("fail", "inconclusive"))


@dataclass(frozen=True)
class GateReport:
    """What a gate has to tell.

    Attributes:
        source: The bundle as it was named on the command line.
        manifest: What it is.
        result: What the gate says.
        clauses: One a clause of the policy, in its order.
        notice: What a device said of its engine's standing; empty where none did.
        changes: Against an older release; None where none was named.
        packed: The bundle is a tar file.
    """

    source: str
    manifest: Manifest
    result: GateResult
    clauses: tuple[JudgedClause, ...]
    notice: str = ""
    changes: Changes | None = None
    packed: bool = False

    @property
    def weak_controls(self) -> tuple[ControlResult, ...]:
        """Controls that the policy does not fail."""
        return tuple(control for control in self.result.controls if not control.caught)

    @property
    def headline(self) -> str:
        """The outcome in a sentence."""
        verdict = self.result.verdict
        count = len(verdict.clauses)
        open_ones = {
            word: sum(result.outcome == word for result in verdict.clauses) for word in ("fail", "inconclusive")
        }
        if self.result.outcome == "pass":
            return f"All {count} clauses hold on {verdict.samples} samples."
        if verdict.outcome == "pass":
            return f"The policy is too weak: it does not fail {', '.join(self.result.too_weak)}."
        parts = [f"{number} {word}" for word, number in open_ones.items() if number]
        return f"Of {count} clauses: {', '.join(parts) or 'none was measured'}, on {verdict.samples} samples."


def gate_report(bundle: Bundle, path: Path, policy: Policy | None = None, baseline: Bundle | None = None) -> GateReport:
    """Judge a bundle and gather what there is to tell of it.

    Args:
        bundle: Opened.
        path: Where from: the folder or tar file as the user named it.
        policy: In place of the bundle's own.
        baseline: An older release: what got worse since is told, and a policy may ask to be no worse.

    Raises:
        BadInputError: The two bundles answer other questions: another teacher, other maps.
        EdgekitError: What `gate` raises.
    """
    result = gate(bundle, policy, None if baseline is None else bundle_baseline(baseline))
    read = scored(bundle)
    return GateReport(
        source=path.as_posix(),
        manifest=bundle.manifest,
        result=result,
        clauses=_judged(result.verdict.clauses, read),
        notice=bundle_notice(bundle),
        changes=None if baseline is None else changes_since(baseline, read, result.verdict),
        packed=not path.is_dir(),
    )


def _judged(results: Sequence[ClauseResult], read: Scored) -> tuple[JudgedClause, ...]:
    judged = []
    for identity, result in zip(clause_identities([result.clause for result in results]), results, strict=True):
        column = clause_column(result.clause, read.table)
        worst = tuple(
            Sample(read.names[place], read.table.sample[place], _value(column, place)) for place in result.worst
        )
        judged.append(JudgedClause(identity, result, worst, _groups(result, read.card.classes)))
    return tuple(judged)


def _groups(result: ClauseResult, classes: Sequence[str]) -> tuple[Group, ...]:
    """Groups of a result; results of clauses that are not over classes have none."""
    return tuple(
        Group(
            name=classes[int(group.name)] if group.name.isdecimal() and int(group.name) < len(classes) else group.name,
            outcome=group.outcome,
            observed=group.observed,
            lower=group.lower,
            upper=group.upper,
            samples=group.samples,
        )
        for group in result.groups
    )


def _value(column: npt.NDArray[np.float64] | None, place: int) -> float | None:
    return None if column is None or np.isnan(column[place]) else float(column[place])
