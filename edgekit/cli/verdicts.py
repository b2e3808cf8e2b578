"""How a verdict is shown: one row a clause, the outcome last, the same for every command that judges."""

from __future__ import annotations

from collections.abc import Sequence

import click

from edgekit.ci.escaping import LONGEST_NAME, visible
from edgekit.cli.tables import render_table, style_outcome
from edgekit.policy.verdict import Verdict
from edgekit.verify.diagnosis.finding import Finding
from edgekit.verify.gate import GateResult

__all__ = ["render_controls", "render_findings", "render_verdict"]

_STATE_WORDS = {
    "both_zero": "both maps empty",
    "one_zero": "one map empty",
    "non_finite": "engine's map not finite",
}


def render_verdict(verdict: Verdict) -> str:
    """The clause table, the counts behind it and the outcome."""
    # Names in a policy are foreign text, and a runner takes lines that begin with "::" for commands.
    rows = [
        (style_outcome(result.outcome), visible(result.text), visible(result.explanation)) for result in verdict.clauses
    ]
    policy = visible(repr(verdict.policy.name), LONGEST_NAME)
    lines = [render_table(("outcome", f"policy {policy} demands", "found"), rows), ""]
    odd = [
        f"{count} {_STATE_WORDS[state]}" for state, count in verdict.states.items() if count and state in _STATE_WORDS
    ]
    lines.append(f"samples: {verdict.samples}" + (f" ({', '.join(odd)})" if odd else ""))
    if verdict.right_label_wrong_evidence:
        lines.append(f"right label, wrong evidence: {verdict.right_label_wrong_evidence} samples")
    lines.append(f"verdict: {style_outcome(verdict.outcome)}")
    return "\n".join(lines)


def render_controls(result: GateResult) -> str:
    """What the policy makes of the controls: one line where it fails them all, or where there are none to fail."""
    if result.controls_state == "off":
        return f"{click.style('controls', fg='yellow')}: switched off; whether the policy can fail was not tried"
    if result.controls_state == "absent":
        return "controls: none stored, this evidence is from before there were any"
    caught = [control.name for control in result.controls if control.caught]
    lines = [f"controls: the policy fails {', '.join(caught) or 'none of them'}"]
    lines += [f"controls: no {name}, since {visible(reason)}" for name, reason in result.controls_missing.items()]
    for control in result.controls:
        if not control.caught:
            said = f"its verdict on {control.name} is {control.verdict.outcome}; {control.remark}"
            lines.append(f"{click.style('policy too weak', fg='yellow')}: {said}")
            lines += [f"  it would be caught by: {text}" for text in control.catching]
            if not control.catching:
                lines.append("  no clause of the presets would catch it on these samples")
    if result.outcome != result.verdict.outcome:
        lines.append(f"with the controls: {style_outcome(result.outcome)}, a policy that passes them shows nothing")
    return "\n".join(lines)


def render_findings(findings: Sequence[Finding]) -> str:
    """What the diagnosis found, one line each; empty when there is nothing to say."""
    return "\n".join(f"{click.style('diagnosis', fg='yellow')} [{item.fault}] {item.text}" for item in findings)
