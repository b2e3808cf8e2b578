"""Results as plain text: aligned tables, facts and verdicts that read the same in a terminal, a log and a diff.

Plain text on purpose: the device side has no rich, and a verdict must not look different there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import click

from edgekit.core.canonical import JsonValue, dump_canonical

__all__ = ["print_json", "render_facts", "render_table", "style_outcome"]

_GAP = "  "
_COLOURS = {
    "pass": "green",
    "yes": "green",
    "ok": "green",
    "fail": "red",
    "no": "red",
    "missing": "red",
    "problem": "yellow",
    "inconclusive": "yellow",
}


def render_table(header: Sequence[str], rows: Sequence[Sequence[object]], *, right: Sequence[str] = ()) -> str:
    """Lay out rows under a header.

    Args:
        header: One title per column.
        rows: As many cells each; shown by `str`.
        right: Titles of the columns aligned to the right, usually the numbers.

    Returns:
        The lines, without a newline at the end. Styled cells keep their alignment.

    Raises:
        ValueError: A row has another number of cells than the header.
    """
    cells = [list(header), ["-" * len(title) for title in header], *([str(cell) for cell in row] for row in rows)]
    widths = [max(len(click.unstyle(row[column])) for row in cells) for column in range(len(header))]
    cells[1] = ["-" * width for width in widths]
    lines = []
    for row in cells:
        padded = []
        for title, cell, width in zip(header, row, widths, strict=True):
            blank = " " * (width - len(click.unstyle(cell)))
            padded.append(blank + cell if title in right else cell + blank)
        lines.append(_GAP.join(padded).rstrip())
    return "\n".join(lines)


def render_facts(facts: Mapping[str, object]) -> str:
    """One `name  value` line each, values aligned."""
    width = max((len(name) for name in facts), default=0)
    return "\n".join(f"{name:<{width}}{_GAP}{value}".rstrip() for name, value in facts.items())


def style_outcome(word: str) -> str:
    """An outcome coloured by what it means; click strips the colour where standard output is not a terminal."""
    return click.style(word, fg=_COLOURS.get(word.lower()), bold=True)


def print_json(value: JsonValue) -> None:
    """Write a result to standard output as the one JSON document of the command."""
    click.echo(dump_canonical(value).decode("utf-8"), nl=False)
