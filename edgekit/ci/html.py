"""One self-contained page: no script, no picture, no font, nothing from a network. Escapes everything.

Without jinja2, which devices do not have. The pictures of samples are in the bundle's own report.
"""

from __future__ import annotations

import base64
import hashlib
from html import escape

from edgekit.ci.comparison import Comparison
from edgekit.ci.comparison_sections import comparison_document
from edgekit.ci.escaping import LONGEST_NAME, visible
from edgekit.ci.gate_sections import gate_document
from edgekit.ci.sections import Cell, Document, Name, Outcome, Section, Table
from edgekit.ci.subject import GateReport

__all__ = ["comparison_html", "gate_html"]

_STYLE = """
:root { color-scheme: light dark; --line: #8886; --pass: #1a7f37; --fail: #cf222e; --open: #9a6700; }
@media (prefers-color-scheme: dark) { :root { --pass: #3fb950; --fail: #ff7b72; --open: #d29922; } }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 64rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; min-width: 50%; }
th, td { text-align: left; vertical-align: top; padding: .3rem .8rem .3rem 0; border-bottom: 1px solid var(--line); }
.number { text-align: right; font-variant-numeric: tabular-nums; }
code { overflow-wrap: anywhere; }
b.pass { color: var(--pass); } b.fail { color: var(--fail); } b.open { color: var(--open); }
summary { cursor: pointer; font-weight: 600; margin-top: 2rem; }
"""
_CLASSES = {"pass": "pass", "fail": "fail", "too weak": "fail"}


def gate_html(report: GateReport) -> str:
    """A gate as a page."""
    return _render(gate_document(report))


def comparison_html(comparison: Comparison) -> str:
    """A comparison as a page."""
    return _render(comparison_document(comparison))


def _render(document: Document) -> str:
    # The page's policy lets in this style sheet and nothing else: markup that slipped through would be inert.
    digest = base64.b64encode(hashlib.sha256(_STYLE.encode("utf-8")).digest()).decode("ascii")
    policy = f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    title = escape("".join(_plain(cell) for cell in document.title))
    head = (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{title}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n<main>\n<h1>{_cells(document.title)}</h1>\n"
    )
    return head + "".join(_section(section) for section in document.sections) + "</main>\n</body>\n</html>\n"


def _section(section: Section) -> str:
    body = "".join(f"<p>{_cells(line)}</p>\n" for line in section.lines)
    if section.table is not None and section.table.rows:
        body += _table(section.table)
    if section.folded:
        return f"<details>\n<summary>{escape(section.title)}</summary>\n{body}</details>\n"
    return (f"<h2>{escape(section.title)}</h2>\n" if section.title else "") + body


def _table(table: Table) -> str:
    numbers = [' class="number"' if title in table.right else "" for title in table.header]
    heads = "".join(
        f'<th scope="col"{number}>{escape(title)}</th>' for title, number in zip(table.header, numbers, strict=True)
    )
    rows = "".join(
        "<tr>"
        + "".join(f"<td{number}>{_cell(cell)}</td>" for cell, number in zip(row, numbers, strict=True))
        + "</tr>\n"
        for row in table.rows
    )
    # A scrolling region has to be reachable by keyboard.
    opening = '<div class="wide" tabindex="0" role="region" aria-label="table">'
    return f"{opening}\n<table>\n<thead><tr>{heads}</tr></thead>\n<tbody>\n{rows}</tbody>\n</table>\n</div>\n"


def _cells(cells: tuple[Cell, ...]) -> str:
    return "".join(_cell(cell) for cell in cells)


def _plain(cell: Cell) -> str:
    if isinstance(cell, Outcome):
        return cell.word
    return visible(cell.text, LONGEST_NAME) if isinstance(cell, Name) else visible(cell)


def _cell(cell: Cell) -> str:
    text = escape(_plain(cell))
    if isinstance(cell, Outcome):
        return f'<b class="{_CLASSES.get(cell.word, "open")}">{text}</b>'
    return f"<code>{text}</code>" if isinstance(cell, Name) else text
