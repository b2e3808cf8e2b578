"""A report as titled sections of sentences and tables, before anybody decided on Markdown, HTML or a terminal.

What is said is written once, in the modules that make sections; how it is escaped is written once a format. A cell is
either text of ours, or a `Name` that came from elsewhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

__all__ = ["Cell", "Document", "Name", "Outcome", "Section", "Table"]


@dataclass(frozen=True)
class Name:
    """Foreign text: a sample, a class, a policy, a file."""

    text: str


@dataclass(frozen=True)
class Outcome:
    """An outcome's word, for formats that have colours or marks."""

    word: str


Cell: TypeAlias = "str | Name | Outcome"


@dataclass(frozen=True)
class Table:
    """Rows under a header.

    Attributes:
        header: Titles.
        rows: As many cells each.
        right: Titles of the columns that hold numbers.
    """

    header: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    right: tuple[str, ...] = ()


@dataclass(frozen=True)
class Section:
    """One part of a report.

    Attributes:
        title: Empty for the first part of a document.
        lines: Sentences, one a paragraph, each a sequence of cells that stand side by side.
        table: Below them; None where there is none.
        folded: Detail that a page may hide until it is asked for.
    """

    title: str
    lines: tuple[tuple[Cell, ...], ...] = ()
    table: Table | None = None
    folded: bool = False


@dataclass(frozen=True)
class Document:
    """A whole report.

    Attributes:
        title: What it is of, as cells side by side.
        sections: In order.
    """

    title: tuple[Cell, ...]
    sections: Sequence[Section]
