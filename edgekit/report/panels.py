"""Pictures with words beside them, on white paper: the drawing that sheets and explanations share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from edgekit.report.images import png_bytes
from edgekit.report.optional import needs_package

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageDraw import ImageDraw
    from PIL.ImageFont import FreeTypeFont, ImageFont

__all__ = ["Column", "cosine_in_words", "draw_columns"]

_PAPER, _INK, _QUIET = (255, 255, 255), (27, 29, 33), (90, 96, 105)
_GAP, _LINE, _TEXT = 10, 22, 16
_STATE_WORDS = {"both_zero": "both maps empty", "one_zero": "one map empty", "non_finite": "map not finite"}


@dataclass(frozen=True)
class Column:
    """Pictures of one size, one under the other, with a line above and lines below.

    Attributes:
        title: Above the pictures.
        pictures: uint8 [H, W, 3] each; all columns of a drawing have as many, of the same size.
        lines: Below the pictures.
    """

    title: str
    pictures: tuple[npt.NDArray[np.uint8], ...]
    lines: tuple[str, ...] = ()


def cosine_in_words(state: str, cosine: float) -> str:
    """The cosine of two maps, or why there is none; `state` is one of `metrics.scores.STATES`."""
    return _STATE_WORDS.get(state) or f"cosine {cosine:.3f}"


def draw_columns(columns: Sequence[Column], row_labels: Sequence[str] = ()) -> bytes:
    """Draw columns side by side and encode them as PNG.

    Args:
        columns: At least one.
        row_labels: Left of each row of pictures; none leaves no room for them.
    """
    with needs_package("Pillow", "images"):
        from PIL import Image, ImageDraw, ImageFont

    font = ImageFont.load_default(_TEXT)
    height, width = columns[0].pictures[0].shape[:2]
    rows, below = len(columns[0].pictures), max(len(column.lines) for column in columns)
    margin = _GAP + (max(int(font.getlength(label)) for label in row_labels) + _GAP if row_labels else 0)
    first = _GAP + _LINE
    foot = first + rows * (height + _GAP)
    sheet = Image.new("RGB", (margin + len(columns) * (width + _GAP), foot + below * _LINE), _PAPER)
    pen = ImageDraw.Draw(sheet)
    for row, label in enumerate(row_labels):
        middle = first + row * (height + _GAP) + height // 2
        pen.text((margin - _GAP, middle), label, fill=_QUIET, font=font, anchor="rm")
    for place, column in enumerate(columns):
        left = margin + place * (width + _GAP)
        centre = left + width // 2
        pen.text((centre, _GAP), _fitted(pen, font, column.title, width), fill=_INK, font=font, anchor="ma")
        for row, picture in enumerate(column.pictures):
            _paste(sheet, picture, (left, first + row * (height + _GAP)))
        for line, text in enumerate(column.lines):
            colour = _INK if line == 0 else _QUIET
            top = (centre, foot + line * _LINE)
            pen.text(top, _fitted(pen, font, text, width), fill=colour, font=font, anchor="ma")
    return png_bytes(np.asarray(sheet, dtype=np.uint8))


def _paste(sheet: Image, picture: npt.NDArray[np.uint8], place: tuple[int, int]) -> None:
    from PIL import Image

    sheet.paste(Image.fromarray(picture), place)


def _fitted(pen: ImageDraw, font: FreeTypeFont | ImageFont, text: str, room: int) -> str:
    """One line that fits: the end of a long class name is cut, and its line breaks are spaces."""
    line = " ".join(text.split())
    if pen.textlength(line, font=font) <= room:
        return line
    # Cut to a plausible length first: names may be as long as somebody likes.
    line = line[:room]
    while line and pen.textlength(line + "…", font=font) > room:
        line = line[:-1]
    return line + "…"
