"""Sections of a report as text for a terminal: aligned tables, coloured outcomes, foreign text made harmless."""

from __future__ import annotations

import click

from edgekit.ci.escaping import LONGEST_NAME, visible
from edgekit.ci.sections import Cell, Document, Name, Outcome, Section
from edgekit.cli.tables import render_table, style_outcome

__all__ = ["render_document", "render_section"]


def render_document(document: Document) -> str:
    """A whole report. Colours go where standard output is no terminal."""
    return "\n\n".join(["".join(map(_cell, document.title)), *map(render_section, document.sections)])


def render_section(section: Section) -> str:
    """Title, sentences and table of one section."""
    parts = [click.style(section.title, bold=True)] if section.title else []
    parts += ["".join(map(_cell, line)) for line in section.lines]
    if section.table is not None and section.table.rows:
        rows = [[_cell(cell) for cell in row] for row in section.table.rows]
        parts.append(render_table(section.table.header, rows, right=section.table.right))
    return "\n".join(parts)


def _cell(cell: Cell) -> str:
    if isinstance(cell, Outcome):
        return style_outcome(visible(cell.word))
    return visible(cell.text, LONGEST_NAME) if isinstance(cell, Name) else visible(cell)
