"""Numbers as text: what is shown reads back as the number, to the digits shown."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekit.errors import DefectError
from edgekit.report.numbers import FORMATS, NumberPrinter, format_number, pointer

UNITS = {"%": 0.01, "points": 0.01, "pp": 0.01, "kB": 1e3, "MB": 1e6, "GB": 1e9, "k": 1e3, "M": 1e6, "G": 1e9}


def read_back(text: str) -> tuple[float, float]:
    """The number a text shows, and how far the real one may be from it: a unit of the last digit shown."""
    bound = 0.0
    if text[0] in "<>":
        bound, text = 1.0, text[1:].strip()
    match = re.fullmatch(r"(-?[\d,]*\.?\d+(?:e[-+]\d+)?)(?:\u202f(\S+))?", text.replace("\u2212", "-"))
    assert match is not None, text
    digits = match[1].replace(",", "")
    scale = UNITS.get(match[2] or "", 1.0)
    mantissa, _, exponent = digits.partition("e")
    last = 10.0 ** (int(exponent or 0) - len(mantissa.partition(".")[2]))
    return float(digits) * scale, last * scale * (0.51 + bound)


@pytest.mark.parametrize(
    ("value", "kind", "text"),
    [
        (0.973, "share", "97.3\u202f%"),
        (1.0, "share", "100.0\u202f%"),
        (0.9999, "share", "> 99.9\u202f%"),
        (0.0002, "share", "< 0.1\u202f%"),
        (0.0, "share", "0.0\u202f%"),
        (-0.25, "exact", "\u22120.2500"),
        (-0.0001, "score", "0.000"),
        (270_896, "si", "271\u202fk"),
        (40_813_184, "si", "40.8\u202fM"),
        (999_999, "bytes", "1.00\u202fMB"),
        (999, "bytes", "999\u202fB"),
        (12_345, "count", "12,345"),
        (0.412, "ms", "0.412\u202fms"),
        (33.74, "ms", "33.7\u202fms"),
        (9.996, "ratio", "10.0\u202f\u00d7"),
        (0.0125, "points", "1.25\u202fpoints"),
        (0.9, "plain", "0.9"),
        (0.25, "percent", "25\u202f%"),
        (0.025, "short-points", "2.5\u202fpp"),
        (0.0000166, "tiny", "1.7e\u22125"),
        (0.0, "tiny", "0"),
    ],
)
def test_numbers_read_as_people_write_them(value: float, kind: str, text: str) -> None:
    assert format_number(value, kind) == text


@pytest.mark.parametrize("kind", sorted(FORMATS))
@given(value=st.floats(0, 1))
def test_a_shown_number_reads_back(kind: str, value: float) -> None:
    value = round(value * 10_000) if kind in ("count", "bytes", "si") else value
    shown, tolerance = read_back(format_number(value, kind))
    assert abs(shown - value) <= tolerance


@given(value=st.integers(0, 10**13))
def test_large_numbers_keep_three_digits(value: int) -> None:
    for kind in ("bytes", "si"):
        shown, _ = read_back(format_number(value, kind))
        assert shown == pytest.approx(value, rel=0.0051)


def test_only_all_is_shown_as_all_and_only_none_as_none() -> None:
    for count in range(1, 20_000, 37):
        text = format_number(count / 20_000, "share")
        assert not text.startswith(("100.0", "0.0")), text


def test_pointers_follow_rfc_6901() -> None:
    assert pointer("localisation", "teacher/pixel~auc", 0) == "/localisation/teacher~1pixel~0auc/0"


def test_a_printed_number_carries_its_path_and_full_value() -> None:
    n = NumberPrinter({"a": [{"b/c": 0.123456789}, {"b/c": None}]})
    assert str(n("score", "a", 0, "b/c")) == '<data value="0.123456789" data-path="/a/0/b~1c">0.123</data>'
    assert "data-path" not in str(n("score", "a", 1, "b/c"))
    assert n.text("score", "a", 1, "b/c") == "n/a"


@pytest.mark.parametrize("path", [("missing",), ("a", 5), ("a", "name"), ("text",), ("flag",)])
def test_a_number_that_is_not_in_the_document_cannot_be_shown(path: tuple[str | int, ...]) -> None:
    n = NumberPrinter({"a": [1], "text": "5", "flag": True})
    with pytest.raises(DefectError):
        n("score", *path)


def test_an_unknown_format_is_refused() -> None:
    with pytest.raises(DefectError, match="percentage"):
        format_number(0.5, "percentage")
