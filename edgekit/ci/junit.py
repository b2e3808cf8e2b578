"""JUnit XML as Jenkins, GitLab and most others read it: a suite a bundle, a case a clause and a control.

The schema is the one that Jenkins' xUnit plugin publishes (junit-10.xsd). A file is red wherever the gate's exit
code is not 0: "fail" is a failure, "inconclusive" an error, since nobody showed that the clause does not hold;
"not-measured" is skipped. The last case is the verdict itself, so that a file whose other cases are all skipped is red.
"""

from __future__ import annotations

from dataclasses import dataclass
from xml.etree import ElementTree

from edgekit.ci.escaping import visible
from edgekit.ci.gate_sections import CONTROLS_WORDS, control_words
from edgekit.ci.subject import GateReport, JudgedClause

__all__ = ["gate_junit"]

_ELEMENTS = {"fail": "failure", "inconclusive": "error", "not-measured": "skipped"}


@dataclass(frozen=True)
class _Case:
    """`element` is None for a case that passes."""

    group: str
    name: str
    element: str | None
    kind: str = ""
    message: str = ""
    detail: str = ""


def gate_junit(report: GateReport) -> str:
    """A gate as JUnit XML."""
    cases = [
        *(_clause_case(item) for item in report.clauses),
        *_control_cases(report),
        _Case(
            "edgekit.gate",
            "verdict",
            _ELEMENTS.get(report.result.outcome),
            report.result.outcome,
            report.headline,
        ),
    ]
    counts = {
        "tests": str(len(cases)),
        "failures": str(sum(case.element == "failure" for case in cases)),
        "errors": str(sum(case.element == "error" for case in cases)),
    }
    root = ElementTree.Element("testsuites", {"name": "edgekit gate", **counts})
    manifest = report.manifest
    name = f"{manifest.target}: {manifest.precision} on {manifest.engine}"
    skipped = str(sum(case.element == "skipped" for case in cases))
    suite = ElementTree.SubElement(root, "testsuite", {"name": name, **counts, "skipped": skipped})
    properties = ElementTree.SubElement(suite, "properties")
    for key, value in _properties(report).items():
        ElementTree.SubElement(properties, "property", {"name": key, "value": visible(value)})
    for case in cases:
        _append(suite, case)
    if report.changes is not None:
        lines = [f"worse: {phrase}" for phrase in report.changes.worse] or ["nothing is shown to have got worse"]
        out = ElementTree.SubElement(suite, "system-out")
        out.text = "\n".join(["since the older release:", *(visible(line) for line in lines)])
    ElementTree.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ElementTree.tostring(root, encoding="unicode") + "\n"


def _properties(report: GateReport) -> dict[str, str]:
    found = {
        "bundle": report.source,
        "digest": report.manifest.digest,
        "status": report.manifest.status,
        "policy": report.result.verdict.policy.name,
        "outcome": report.result.outcome,
        "exit-code": str(int(report.result.exit_code)),
    }
    if report.notice:
        found["notice"] = report.notice
    if report.changes is not None:
        found["baseline"] = report.changes.baseline
    return found


def _clause_case(item: JudgedClause) -> _Case:
    result = item.result
    lines = [result.explanation]
    lines += [f"class {visible(group.name)}: {group.outcome}" for group in item.open_groups]
    for sample in item.worst:
        value = "" if sample.value is None else f" {sample.value:.4f}"
        lines.append(f"{visible(sample.name)}{value} (SHA-256 {sample.digest})")
    return _Case(
        "edgekit.clauses",
        f"{item.identity}: {result.text}",
        _ELEMENTS.get(result.outcome),
        result.outcome,
        result.explanation,
        "\n".join(lines),
    )


def _control_cases(report: GateReport) -> list[_Case]:
    result = report.result
    if result.controls_state != "ran":
        words = CONTROLS_WORDS[result.controls_state]
        return [_Case("edgekit.controls", "controls", "skipped", result.controls_state, words)]
    return [
        _Case(
            "edgekit.controls",
            f"the policy fails {control.name}",
            None if control.caught else "failure",
            "too-weak",
            control_words(control),
        )
        for control in result.controls
    ]


def _append(suite: ElementTree.Element, case: _Case) -> None:
    element = ElementTree.SubElement(suite, "testcase", {"classname": case.group, "name": visible(case.name)})
    if case.element is not None:
        told = ElementTree.SubElement(element, case.element, {"type": case.kind, "message": visible(case.message)})
        # Line by line: the breaks between samples are ours.
        told.text = "\n".join(visible(line) for line in (case.detail or case.message).split("\n"))
