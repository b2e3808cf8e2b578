"""The gate as a table for a terminal: its default format."""

from __future__ import annotations

import click

from edgekit.ci.change_sections import change_sections
from edgekit.ci.escaping import visible
from edgekit.ci.subject import GateReport
from edgekit.cli.sections import render_section
from edgekit.cli.verdicts import render_controls, render_verdict

__all__ = ["render_gate"]


def render_gate(report: GateReport) -> str:
    """The verdict and what stands beside it: controls, an older release, a device's notice."""
    result = report.result
    parts = ["\n".join([render_verdict(result.verdict), render_controls(result)])]
    if report.changes is not None:
        parts += [render_section(section) for section in change_sections(report.changes)]
    if report.notice:
        parts.append(f"{click.style('note', fg='yellow')} {visible(report.notice)}")
    return "\n\n".join(parts)
