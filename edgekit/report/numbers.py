"""Numbers as people read them, each tied to its place in `report.json`.

A page could show a number that the JSON lacks, or another one. Here a number reaches the page by its path in the
document only, and the element that shows it carries the path and the full value.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from edgekit.errors import DefectError

__all__ = ["FORMATS", "NumberPrinter", "format_number", "pointer"]

# Narrow, and never broken between number and unit.
_SPACE = "\u202f"
_MINUS, _TIMES = "\u2212", "\u00d7"
_SCALES = ((1e9, "G"), (1e6, "M"), (1e3, "k"))


def _share(value: float) -> str:
    text = f"{100 * value:.1f}"
    # What is not quite all, or not quite nothing, must not look like it.
    if text == "100.0" and value < 1:
        return f"> 99.9{_SPACE}%"
    if text == "0.0" and value > 0:
        return f"< 0.1{_SPACE}%"
    return f"{text}{_SPACE}%"


def _score(value: float, decimals: int = 3) -> str:
    text = f"{value:.{decimals}f}"
    return text if float(text) else text.lstrip("-")


def _scaled(value: float, unit: str) -> str:
    for scale, prefix in _SCALES:
        if abs(value) >= 0.9995 * scale:
            return f"{_significant(value / scale)}{_SPACE}{prefix}{unit}"
    return f"{_plain(value)}{_SPACE}{unit}".rstrip()


def _significant(value: float) -> str:
    size = abs(value)
    decimals = next((count for count, least in ((0, 99.95), (1, 9.995), (2, 0.9995)) if size >= least), 3)
    return f"{value:.{decimals}f}"


def _tiny(value: float) -> str:
    """Two digits, with a power of ten where many zeros would have to be counted."""
    if abs(value) >= 1:
        return _significant(value)
    return f"{value:.1e}".replace("e-0", "e-") if 0 < abs(value) < 1e-3 else f"{value:.2g}"


def _plain(value: float) -> str:
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:.6g}"


FORMATS: Mapping[str, Callable[[float], str]] = MappingProxyType(
    {
        "bytes": lambda value: _scaled(value, "B"),
        "count": lambda value: f"{value:,.0f}",
        "exact": lambda value: _score(value, 4),
        "mj": lambda value: f"{_significant(value)}{_SPACE}mJ",
        "ms": lambda value: f"{_significant(value)}{_SPACE}ms",
        "percent": lambda value: f"{_plain(round(100 * value, 9))}{_SPACE}%",
        "plain": _plain,
        "short-points": lambda value: f"{_plain(round(100 * value, 9))}{_SPACE}pp",
        "points": lambda value: f"{_score(100 * value, 2)}{_SPACE}points",
        "ratio": lambda value: f"{_significant(value)}{_SPACE}{_TIMES}",
        "score": _score,
        "share": _share,
        "tiny": _tiny,
        "si": lambda value: _scaled(value, ""),
        "w": lambda value: f"{_significant(value)}{_SPACE}W",
    }
)
"""How a number may be shown. Shares are percent, points are percentage points, bytes are decimal."""


def format_number(value: float, kind: str) -> str:
    """A number for a person. Raises `DefectError` where there is no such format."""
    if kind not in FORMATS:
        raise DefectError(f"There is no number format {kind!r}.", expected=", ".join(FORMATS))
    return FORMATS[kind](value).replace("-", _MINUS)


def pointer(*path: str | int) -> str:
    """A JSON pointer (RFC 6901) to a value of the document."""
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in path)


class NumberPrinter:
    """Shows numbers of one document.

    Args:
        document: As it reads back from `report.json`.
    """

    def __init__(self, document: Mapping[str, Any]) -> None:
        self._document = document

    def value(self, *path: str | int) -> float | None:
        """The number at a path, None where the document says null.

        Raises:
            DefectError: There is nothing at that path, or no number.
        """
        found: Any = self._document
        try:
            for part in path:
                found = found[part]
        except (KeyError, IndexError, TypeError) as cause:
            raise DefectError("A report shows a number it does not hold.", where=pointer(*path)) from cause
        if found is not None and (isinstance(found, bool) or not isinstance(found, (int, float))):
            raise DefectError("A report shows as a number what is none.", where=pointer(*path), found=repr(found))
        return found

    def text(self, kind: str, *path: str | int) -> str:
        """The number at a path as text, "n/a" where there is none."""
        value = self.value(*path)
        return "n/a" if value is None else format_number(value, kind)

    def __call__(self, kind: str, *path: str | int) -> Any:
        """The number at a path as HTML: a `data` element with its value and path."""
        from markupsafe import Markup

        value = self.value(*path)
        if value is None:
            return Markup('<span class="none" title="no value">n/a</span>')
        return Markup('<data value="{}" data-path="{}">{}</data>').format(
            repr(value), pointer(*path), format_number(value, kind)
        )

    def attributes(self, *path: str | int) -> Any:
        """Attributes that tie an SVG element, which has no `data`, to the number at a path."""
        from markupsafe import Markup

        return Markup('data-value="{}" data-path="{}"').format(repr(self.value(*path)), pointer(*path))
