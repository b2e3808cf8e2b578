"""The files that blame leaves: one document, one table, one page, and the list that a recipe takes."""

from __future__ import annotations

import csv
import io
from pathlib import Path

from edgekit.blame.bundled import BlameReport
from edgekit.blame.exclusion import Exclusion
from edgekit.blame.options import METRICS
from edgekit.blame.tensors import Blame
from edgekit.core.canonical import write_json
from edgekit.core.files import write_bytes
from edgekit.report.blame_page import render_blame_page

__all__ = ["CSV_NAME", "EXCLUDE_NAME", "HTML_NAME", "JSON_NAME", "RECIPE_NAME", "exclude_yaml", "write_blame"]

JSON_NAME = "blame.json"
CSV_NAME = "blame.csv"
HTML_NAME = "blame.html"
EXCLUDE_NAME = "exclude.yaml"
RECIPE_NAME = "recipe.json"

# Spreadsheets take text that begins so for a formula.
_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")
_EXCLUDE_HEADING = """\
# Operations that stay in float, found by 'edgekit blame'. Take these lines into your recipe, or build with recipe.json
# beside this file, which is the bundle's recipe with them.
"""


def write_blame(report: BlameReport, folder: Path) -> tuple[Path, ...]:
    """Write what was found into `folder`, which is made where it is missing, and return the files.

    `blame.json` and the page that is drawn from it always; `blame.csv` where tensors were blamed; `exclude.yaml` and
    `recipe.json` where a list was wanted.

    Raises:
        BadInputError: The folder cannot be written to.
        UnavailableError: The disk is full, or a package of the host side is missing.
    """
    document = report.to_dict()
    write_json(folder / JSON_NAME, document)
    write_bytes(folder / HTML_NAME, render_blame_page(document).encode("utf-8"))
    written = [folder / JSON_NAME, folder / HTML_NAME]
    if report.blame is not None:
        write_bytes(folder / CSV_NAME, _csv(report.blame).encode("utf-8"))
        written.append(folder / CSV_NAME)
    if report.exclusion is not None:
        write_bytes(folder / EXCLUDE_NAME, exclude_yaml(report.exclusion).encode("ascii"))
        recipe = dict(report.recipe)
        recipe["calibrate"] = {**dict(recipe.get("calibrate") or {}), "exclude": list(report.exclusion.patterns)}
        write_json(folder / RECIPE_NAME, recipe)
        written += [folder / EXCLUDE_NAME, folder / RECIPE_NAME]
    return tuple(written)


def exclude_yaml(exclusion: Exclusion) -> str:
    """A recipe that says what stays in float and nothing else, ASCII whatever nodes are called."""
    if not exclusion.patterns:
        return f"{_EXCLUDE_HEADING}calibrate:\n  exclude: []\n"
    lines = [f"    - {_quoted(pattern)}\n" for pattern in exclusion.patterns]
    return f"{_EXCLUDE_HEADING}calibrate:\n  exclude:\n{''.join(lines)}"


def _quoted(text: str) -> str:
    """A double-quoted scalar of YAML 1.2, which every YAML and no more than ASCII is needed to read."""

    def escaped(character: str) -> str:
        if character in ('"', "\\"):
            return f"\\{character}"
        if " " <= character <= "~":
            return character
        code = ord(character)
        return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"

    return '"' + "".join(map(escaped, text)) + '"'


def _csv(blame: Blame) -> str:
    stream = io.StringIO()
    table = csv.writer(stream, lineterminator="\n")
    columns = [
        f"{side}_{name}{end}" for side in ("only", "all_but") for name in METRICS for end in ("", "_low", "_high")
    ]
    head = ("rank", "rank_first", "rank_last", "score", "score_low", "score_high")
    about = ("name", "kind", "operation", "node", "module", "depth", "tensors")
    table.writerow((*head, *about, *columns))
    for item in blame.units:
        unit = item.unit
        texts = (unit.name, unit.kind, unit.operation, unit.node or "", unit.module or "")
        numbers = [
            value
            for side in (item.only, item.all_but)
            for name in METRICS
            for value in (side[name].mean, side[name].low, side[name].high)
        ]
        table.writerow(
            (
                *(item.rank, item.ranks.first, item.ranks.last, item.score.mean, item.score.low, item.score.high),
                *map(_plain_text, texts),
                unit.depth,
                _plain_text(" ".join(unit.tensors)),
                *numbers,
            )
        )
    return stream.getvalue()


def _plain_text(text: str) -> str:
    return f"'{text}" if text.startswith(_FORMULA_STARTS) else text
