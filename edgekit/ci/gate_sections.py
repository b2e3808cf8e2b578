"""What a gate says to people, as sections: outcome, clauses, controls, worst samples, and what changed."""

from __future__ import annotations

from edgekit.ci.change_sections import change_sections
from edgekit.ci.sections import Cell, Document, Name, Outcome, Section, Table
from edgekit.ci.subject import GateReport

__all__ = ["CONTROLS_WORDS", "control_sections", "gate_document"]

CONTROLS_WORDS = {
    "ran": "",
    "off": "Controls were switched off when this bundle was verified: nothing shows that the policy can fail.",
    "absent": "This bundle holds no controls.",
}


def gate_document(report: GateReport) -> Document:
    """Everything a person needs to know of a gate, the outcome first."""
    sections = [_head(report), _clauses(report), *control_sections(report), *_worst(report)]
    if report.changes is not None:
        sections += change_sections(report.changes)
    return Document(("edgekit gate: ", Outcome(report.result.outcome)), tuple(sections))


def _head(report: GateReport) -> Section:
    manifest, verdict = report.manifest, report.result.verdict
    lines: list[tuple[Cell, ...]] = [(report.headline,)]
    if verdict.right_label_wrong_evidence:
        lines.append((f"Right label, wrong evidence: {verdict.right_label_wrong_evidence} samples.",))
    if report.notice:
        lines.append((f"Note: {report.notice}",))
    rows: tuple[tuple[Cell, ...], ...] = (
        ("bundle", Name(report.source)),
        ("digest", Name(manifest.digest)),
        ("status", manifest.status),
        ("built for", f"{manifest.target}: {manifest.precision} on {manifest.engine}"),
        ("policy", Name(verdict.policy.name)),
        ("exit code", str(int(report.result.exit_code))),
    )
    return Section("", tuple(lines), Table(("what", "value"), rows))


def _clauses(report: GateReport) -> Section:
    rows = tuple((Outcome(item.result.outcome), item.result.text, item.result.explanation) for item in report.clauses)
    return Section("Clauses", (), Table(("outcome", "the policy demands", "found"), rows))


def control_sections(report: GateReport) -> list[Section]:
    """What the policy says of answers that no policy may let pass."""
    result = report.result
    if result.controls_state != "ran":
        return [Section("Controls", ((CONTROLS_WORDS[result.controls_state],),))]
    rows = tuple(
        (
            Outcome("pass" if control.caught else "too weak"),
            Name(control.name),
            "the policy fails it, as it must" if control.caught else f"the policy says {control.verdict.outcome}",
        )
        for control in result.controls
    )
    return [Section("Controls", (), Table(("outcome", "control", "found"), rows))]


def _worst(report: GateReport) -> list[Section]:
    rows = tuple(
        (item.identity, Name(sample.name), "-" if sample.value is None else f"{sample.value:.4f}", sample.digest[:12])
        for item in report.clauses
        if item.result.outcome in ("fail", "inconclusive")
        for sample in item.worst
    )
    if not rows:
        return []
    table = Table(("clause", "sample", "value", "SHA-256 begins"), rows, right=("value",))
    return [Section("Samples that speak against it", (), table, folded=True)]
