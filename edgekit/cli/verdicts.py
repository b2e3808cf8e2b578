"""How a verdict is shown: one row a clause, the outcome last, the same for every command that judges."""

from __future__ import annotations

from collections.abc import Sequence

import click

from edgekit.cli.tables import render_table, style_outcome
from edgekit.policy.verdict import Verdict
from edgekit.verify.finding import Finding

__all__ = ["render_findings", "render_verdict"]

_STATE_WORDS = {
    "both_zero": "both maps empty",
    "one_zero": "one map empty",
    "non_finite": "engine's map not finite",
}


def render_verdict(verdict: Verdict) -> str:
    """The clause table, the counts behind it and the outcome."""
    rows = [(style_outcome(result.outcome), result.text, result.explanation) for result in verdict.clauses]
    lines = [render_table(("outcome", f"policy {verdict.policy.name!r} demands", "found"), rows), ""]
    odd = [
        f"{count} {_STATE_WORDS[state]}" for state, count in verdict.states.items() if count and state in _STATE_WORDS
    ]
    lines.append(f"samples: {verdict.samples}" + (f" ({', '.join(odd)})" if odd else ""))
    if verdict.right_label_wrong_evidence:
        lines.append(f"right label, wrong evidence: {verdict.right_label_wrong_evidence} samples")
    lines.append(f"verdict: {style_outcome(verdict.outcome)}")
    return "\n".join(lines)


def render_findings(findings: Sequence[Finding]) -> str:
    """What the diagnosis found, one line each; empty when there is nothing to say."""
    return "\n".join(f"{click.style('diagnosis', fg='yellow')} [{item.fault}] {item.text}" for item in findings)
