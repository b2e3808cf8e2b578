"""Writing the report: one page for people, one document for programs."""

from __future__ import annotations

from pathlib import Path

from edgekit.core.canonical import write_json
from edgekit.core.files import write_bytes
from edgekit.report.data import ReportData
from edgekit.report.document import report_document
from edgekit.report.page import render_page
from edgekit.report.samples import draw_tiles
from edgekit.report.selection import select_samples

__all__ = ["HTML_NAME", "JSON_NAME", "write_report"]

HTML_NAME = "report.html"
JSON_NAME = "report.json"


def write_report(data: ReportData, folder: Path) -> None:
    """Write `report.html` and `report.json` into `folder`, which is made where it is missing.

    The same data give the same bytes. The page is self-contained, below 5 MB whatever the number of samples, and
    shows no number that the JSON does not hold.

    Raises:
        BadInputError: The folder cannot be written to.
        UnavailableError: The disk is full, or a package of the host side is missing.
        DefectError: Something in `data` cannot be written as JSON.
    """
    selection = select_samples(data.verdict.policy, data.table)
    document = report_document(data, selection)
    page = render_page(document, draw_tiles(data, selection.pictured))
    write_json(folder / JSON_NAME, document)
    write_bytes(folder / HTML_NAME, page.encode("utf-8"))
