"""The verdict: every clause judged, and what that makes of the whole. Nothing that was not shown passes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from edgekit.errors import BadInputError, ExitCode, IntegrityError
from edgekit.metrics.scores import STATES, ScoreTable
from edgekit.metrics.scores_io import check_scores
from edgekit.policy.context import NOTHING_BESIDE, Context
from edgekit.policy.document import policy_from_dict
from edgekit.policy.evaluate import evaluate_clause, right_label_wrong_evidence
from edgekit.policy.policy import Policy
from edgekit.policy.result import CLAUSE_OUTCOMES, ClauseResult, GroupResult
from edgekit.policy.words import clause_in_words, result_in_words

__all__ = ["VERDICT_FORMAT", "Outcome", "Verdict", "judge"]

VERDICT_FORMAT = "edgekit.verdict/1"
Outcome: TypeAlias = Literal["pass", "fail", "inconclusive"]

_EXIT_CODES: Mapping[Outcome, ExitCode] = {
    "pass": ExitCode.OK,
    "fail": ExitCode.GATE_FAILED,
    "inconclusive": ExitCode.INCONCLUSIVE,
}
_KEYS = {"format", "policy", "outcome", "samples", "states", "right_label_wrong_evidence", "clauses"}


@dataclass(frozen=True)
class Verdict:
    """What a policy says about a table of scores.

    Attributes:
        policy: What was demanded.
        outcome: "fail" when any clause fails; else "inconclusive" when any is, or none holds; else "pass".
        clauses: One result a clause, in the policy's order.
        samples: Samples in the table.
        states: State to number of samples, every state named.
        right_label_wrong_evidence: Samples the engine answers rightly for reasons that are not the teacher's; see
            `edgekit.policy.evaluate.right_label_wrong_evidence`.
    """

    policy: Policy
    outcome: Outcome
    clauses: tuple[ClauseResult, ...]
    samples: int
    states: Mapping[str, int]
    right_label_wrong_evidence: int

    @property
    def exit_code(self) -> ExitCode:
        """0 for pass, 1 for fail, 6 for inconclusive."""
        return _EXIT_CODES[self.outcome]

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form, without words: two verdicts are the same when these are equal."""
        return {
            "format": VERDICT_FORMAT,
            "policy": self.policy.to_dict(),
            "outcome": self.outcome,
            "samples": self.samples,
            "states": dict(self.states),
            "right_label_wrong_evidence": self.right_label_wrong_evidence,
            "clauses": [result.to_dict() for result in self.clauses],
        }

    def to_dict_in_words(self) -> dict[str, Any]:
        """`to_dict` with each clause's text and explanation, for output that people and their tools read."""
        document = self.to_dict()
        for entry, result in zip(document["clauses"], self.clauses, strict=True):
            entry |= {"text": result.text, "explanation": result.explanation}
        return document

    @classmethod
    def from_dict(cls, raw: object, *, where: str) -> Verdict:
        """Read a stored verdict.

        Raises:
            IntegrityError: It is malformed, or its parts contradict each other.
        """
        if not isinstance(raw, Mapping) or set(raw) != _KEYS or raw["format"] != VERDICT_FORMAT:
            raise IntegrityError(
                "A verdict is malformed.", where=where, expected=f"{VERDICT_FORMAT} with {', '.join(sorted(_KEYS))}"
            )
        try:
            policy = policy_from_dict(raw["policy"], where=where)
            verdict = cls(
                policy=policy,
                outcome=raw["outcome"],
                clauses=_results_from_list(raw["clauses"], policy),
                samples=_count(raw["samples"]),
                states={state: _count(raw["states"][state]) for state in STATES},
                right_label_wrong_evidence=_count(raw["right_label_wrong_evidence"]),
            )
        except (BadInputError, KeyError, TypeError, ValueError, AttributeError) as cause:
            raise IntegrityError("A verdict is malformed.", where=where, found=str(cause)) from cause
        if verdict.outcome != _combined(verdict.clauses) or sum(verdict.states.values()) != verdict.samples:
            raise IntegrityError(
                "A verdict contradicts itself.",
                where=where,
                expected=f"outcome {_combined(verdict.clauses)!r}, {sum(verdict.states.values())} samples",
                found=f"outcome {verdict.outcome!r}, {verdict.samples} samples",
            )
        if verdict.to_dict() != raw:
            raise IntegrityError("A verdict is malformed.", where=where, found="values beside those of a verdict")
        return verdict


def judge(policy: Policy, table: ScoreTable, context: Context = NOTHING_BESIDE) -> Verdict:
    """Judge a table of scores.

    Args:
        policy: What is demanded.
        table: One row a golden sample. An empty one shows nothing, so it is never passed.
        context: What clauses may look at beside the scores.

    Raises:
        IntegrityError: The table could not have come from a verification.
    """
    check_scores(table)
    results = tuple(evaluate_clause(clause, policy, table, context) for clause in policy.clauses)
    return Verdict(
        policy=policy,
        outcome=_combined(results),
        clauses=results,
        samples=len(table),
        states={state: table.state.count(state) for state in STATES},
        right_label_wrong_evidence=int(right_label_wrong_evidence(policy, table).sum()),
    )


def _combined(results: Sequence[ClauseResult]) -> Outcome:
    outcomes = {result.outcome for result in results}
    if "fail" in outcomes:
        return "fail"
    if "inconclusive" in outcomes or "pass" not in outcomes:
        return "inconclusive"
    return "pass"


def _results_from_list(raw: object, policy: Policy) -> tuple[ClauseResult, ...]:
    if not isinstance(raw, list) or len(raw) != len(policy.clauses):
        raise ValueError(f"not one result for each of the {len(policy.clauses)} clauses")
    results = []
    for entry, clause in zip(raw, policy.clauses, strict=True):
        if entry["outcome"] not in CLAUSE_OUTCOMES:
            raise ValueError(f"unknown outcome {entry['outcome']!r}")
        result = ClauseResult(
            clause=clause,
            text=clause_in_words(clause, policy.bound_confidence),
            explanation="",
            outcome=entry["outcome"],
            observed=_number_or_none(entry["observed"]),
            lower=_number_or_none(entry["lower"]),
            upper=_number_or_none(entry["upper"]),
            samples=_count(entry["samples"]),
            successes=None if entry["successes"] is None else _count(entry["successes"]),
            samples_needed=None if entry["samples_needed"] is None else _count(entry["samples_needed"]),
            worst=tuple(_count(place) for place in entry["worst"]),
            measured=entry["measured"] is True,
            groups=tuple(_group(group) for group in entry.get("groups", ())),
        )
        results.append(_explained(result, policy))
    return tuple(results)


def _group(raw: Mapping[str, Any]) -> GroupResult:
    if raw["outcome"] not in CLAUSE_OUTCOMES or not isinstance(raw["name"], str):
        raise ValueError(f"not a class's outcome: {raw!r}")
    return GroupResult(
        outcome=raw["outcome"],
        observed=_number_or_none(raw["observed"]),
        lower=_number_or_none(raw["lower"]),
        upper=_number_or_none(raw["upper"]),
        samples=_count(raw["samples"]),
        successes=None if raw["successes"] is None else _count(raw["successes"]),
        samples_needed=None if raw["samples_needed"] is None else _count(raw["samples_needed"]),
        name=raw["name"],
    )


def _explained(result: ClauseResult, policy: Policy) -> ClauseResult:
    values = dict(vars(result))
    values["explanation"] = result_in_words(result, policy.min_samples)
    return ClauseResult(**values)


def _count(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise TypeError(f"not a count: {value!r}")
    return value


def _number_or_none(value: object) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"not a number or null: {value!r}")
    return float(value)
