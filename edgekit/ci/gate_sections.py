"""What a gate says to people, as sections: outcome, clauses, controls, worst samples, and what changed."""

from __future__ import annotations

from collections.abc import Mapping

from edgekit.ci.change_sections import change_sections
from edgekit.ci.sections import Cell, Document, Name, Outcome, Section, Table
from edgekit.ci.subject import GateReport, Group
from edgekit.verify.controls import ControlResult

__all__ = ["CONTROLS_WORDS", "control_sections", "control_words", "gate_document"]

# Classes of a clause that are listed; the JSON document has all of them.
_MOST_GROUPS = 20

CONTROLS_WORDS = {
    "ran": "",
    "off": "Switched off; whether the policy can fail was not tried.",
    "absent": "None stored, this evidence is from before there were any.",
}


def gate_document(report: GateReport) -> Document:
    """Everything a person needs to know of a gate, the outcome first."""
    sections = [_head(report), _clauses(report), *_groups(report), *control_sections(report), *_worst(report)]
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
        (Outcome("pass" if control.caught else "too weak"), Name(control.name), control_words(control))
        for control in result.controls
    )
    missing: Mapping[str, str] = result.controls_missing
    lines: tuple[tuple[Cell, ...], ...] = tuple(
        ("No control ", Name(name), f": {reason}.") for name, reason in missing.items()
    )
    return [Section("Controls", lines, Table(("outcome", "control", "found"), rows))]


def control_words(control: ControlResult) -> str:
    """What the policy says of one control, and what may be done where that is not "fail"."""
    if control.caught:
        return "the policy fails it, as it must"
    remark = control.remark
    catching = "; ".join(control.catching)
    parts = [
        f"the policy says {control.verdict.outcome}",
        remark,
        f"it would be caught by: {catching}" if catching else "",
    ]
    return "; ".join(part for part in parts if part)


def _groups(report: GateReport) -> list[Section]:
    rows = tuple(
        (item.identity, Name(group.name), Outcome(group.outcome), *_numbers(group))
        for item in report.clauses
        for group in item.open_groups[:_MOST_GROUPS]
    )
    if not rows:
        return []
    header = ("clause", "class", "outcome", "found", "bounds", "samples")
    return [Section("Classes that do not hold", (), Table(header, rows, right=header[3:]))]


def _numbers(group: Group) -> tuple[str, str, str]:
    bounds = "-" if group.lower is None or group.upper is None else f"{group.lower:.4f} to {group.upper:.4f}"
    return "-" if group.observed is None else f"{group.observed:.4f}", bounds, str(group.samples)


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
