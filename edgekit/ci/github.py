"""What GitHub Actions reads beside an exit code: annotations, and the summary of a step.

A runner takes every line that begins with "::" for a command, on standard output and on standard error alike.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from edgekit.ci.escaping import LONGEST_NAME, for_command, for_command_property, visible
from edgekit.ci.gate_sections import CONTROLS_WORDS
from edgekit.ci.subject import GateReport, JudgedClause
from edgekit.core.files import foreign_os_errors

__all__ = ["LARGEST_SUMMARY", "annotate", "append_summary", "gate_annotations", "on_github", "summary_path"]

LARGEST_SUMMARY = 1024 * 1024
"""Bytes of a step's summary; GitHub shows nothing of a longer one."""

_SAMPLES_NAMED = 3


def on_github(environment: Mapping[str, str]) -> bool:
    """Whether this runs in a GitHub Action."""
    return environment.get("GITHUB_ACTIONS") == "true"


def summary_path(environment: Mapping[str, str]) -> Path | None:
    """Where the step's summary is written; None where there is no such place."""
    named = environment.get("GITHUB_STEP_SUMMARY", "")
    return Path(named) if named else None


def annotate(level: str, title: str, message: str) -> str:
    """One workflow command. `level` is "error", "warning" or "notice"."""
    return f"::{level} title={for_command_property(title)}::{for_command(message)}"


def gate_annotations(report: GateReport) -> tuple[str, ...]:
    """A line for everything that keeps the gate shut, and a warning for what got worse behind an open one."""
    lines = [
        annotate("error", f"edgekit gate: {item.result.outcome}", _clause_message(item))
        for item in report.clauses
        if item.result.outcome in ("fail", "inconclusive")
    ]
    lines += [
        annotate(
            "error", "edgekit gate: policy too weak", f"The policy says {control.verdict.outcome} to {control.name}."
        )
        for control in report.weak_controls
    ]
    if report.result.outcome != "pass" and not lines:
        lines.append(annotate("error", f"edgekit gate: {report.result.outcome}", report.headline))
    if report.result.controls_state == "off":
        lines.append(annotate("warning", "edgekit gate: controls off", CONTROLS_WORDS["off"]))
    if report.changes is not None:
        lines += [
            annotate("warning", "edgekit gate: worse than the baseline", phrase) for phrase in report.changes.worse
        ]
    return tuple(lines)


def _clause_message(item: JudgedClause) -> str:
    lines = [f"{item.result.text}: {item.result.explanation}"]
    for sample in item.worst[:_SAMPLES_NAMED]:
        value = "" if sample.value is None else f" {sample.value:.4f}"
        lines.append(visible(sample.name, LONGEST_NAME) + value)
    return "\n".join(lines)


def append_summary(path: Path, markdown: str) -> None:
    """Append to a step's summary. Raises `BadInputError` where it cannot be written."""
    data = markdown.encode("utf-8")
    with foreign_os_errors(path, "write the step's summary"):
        held = path.stat().st_size if path.exists() else 0
        if held + len(data) > LARGEST_SUMMARY:
            data = b"The report is too long for a step's summary; the job's log and files have it.\n"
        with path.open("ab") as stream:
            # Markdown needs a blank line between what an earlier command wrote and this.
            stream.write((b"\n" if held else b"") + data)
