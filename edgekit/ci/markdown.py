"""Markdown as GitHub and GitLab render it: for step summaries and comments on merge requests."""

from __future__ import annotations

import html

from edgekit.ci.comparison import Comparison
from edgekit.ci.comparison_sections import comparison_document
from edgekit.ci.escaping import LONGEST_NAME, for_markdown, visible
from edgekit.ci.gate_sections import gate_document
from edgekit.ci.sections import Cell, Document, Name, Outcome, Section, Table
from edgekit.ci.subject import GateReport

__all__ = ["comparison_markdown", "gate_markdown"]

# Words stay beside the marks: a mark alone says nothing to a screen reader, nor in a plain-text mail.
_MARKS = {"pass": "\u2705", "fail": "\u274c", "inconclusive": "\u2753", "too weak": "\u274c"}


def gate_markdown(report: GateReport) -> str:
    """A gate for people."""
    return _render(gate_document(report))


def comparison_markdown(comparison: Comparison) -> str:
    """A comparison for people."""
    return _render(comparison_document(comparison))


def _render(document: Document) -> str:
    parts = ["## " + _cells(document.title)]
    for section in document.sections:
        parts += _section(section)
    return "\n\n".join(parts) + "\n"


def _section(section: Section) -> list[str]:
    body = [_cells(line) for line in section.lines]
    if section.table is not None and section.table.rows:
        body.append(_table(section.table))
    if section.folded:
        return [f"<details><summary>{html.escape(section.title)}</summary>", *body, "</details>"]
    return ([f"### {for_markdown(section.title)}"] if section.title else []) + body


def _table(table: Table) -> str:
    rule = ["---:" if title in table.right else "---" for title in table.header]
    rows = [
        [for_markdown(title) for title in table.header],
        rule,
        *([_cell(cell) for cell in row] for row in table.rows),
    ]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def _cells(cells: tuple[Cell, ...]) -> str:
    return "".join(_cell(cell) for cell in cells)


def _cell(cell: Cell) -> str:
    if isinstance(cell, Outcome):
        return f"{_MARKS.get(cell.word, '')} **{for_markdown(cell.word)}**".strip()
    if isinstance(cell, Name):
        return _code(cell.text)
    return for_markdown(cell)


def _code(text: str) -> str:
    """Foreign text as code, in which neither mentions nor issue numbers are looked for."""
    return f"<code>{for_markdown(visible(text, LONGEST_NAME))}</code>"
