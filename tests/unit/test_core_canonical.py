"""Canonical JSON: one byte string per value, and nothing read that two readers could understand differently."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekit.core import canonical
from edgekit.core.canonical import dump_canonical, parse_strict, read_json, write_json
from edgekit.errors import BadInputError, DefectError, IntegrityError

TEXT = st.text(st.characters(exclude_categories=["Cs"]))
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=20,
)


def parse(data: bytes) -> Any:
    return parse_strict(data, where="test.json")


def reordered(value: Any) -> Any:
    """The same value with every mapping filled the other way round."""
    if isinstance(value, dict):
        return {key: reordered(value[key]) for key in reversed(value)}
    return [reordered(item) for item in value] if isinstance(value, list) else value


@settings(deadline=None, derandomize=True, max_examples=60)
@given(VALUES)
def test_what_was_written_is_read_back(value: Any) -> None:
    assert parse(dump_canonical(value)) == value


@settings(deadline=None, derandomize=True, max_examples=60)
@given(VALUES)
def test_equal_values_have_one_form(value: Any) -> None:
    data = dump_canonical(value)
    assert dump_canonical(reordered(value)) == data
    assert dump_canonical(parse(data)) == data


@settings(deadline=None, derandomize=True, max_examples=60)
@given(VALUES)
def test_plain_readers_agree(value: Any) -> None:
    assert json.loads(dump_canonical(value)) == value


def test_the_form_itself() -> None:
    assert (
        dump_canonical({"b": [1, 2.5], "a": "Zürich"}) == '{\n "a": "Zürich",\n "b": [\n  1,\n  2.5\n ]\n}\n'.encode()
    )


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, [math.nan], {"a": {"b": math.inf}}])
def test_numbers_that_are_not_finite_are_not_written(value: Any) -> None:
    with pytest.raises(DefectError, match="canonical JSON"):
        dump_canonical(value)


@pytest.mark.parametrize("value", [{1, 2}, b"bytes", object(), {"a": Path("x")}])
def test_what_json_cannot_say_is_not_written(value: Any) -> None:
    with pytest.raises(DefectError):
        dump_canonical(value)


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999", "-1e999"])
def test_numbers_that_are_not_finite_are_refused(number: str) -> None:
    with pytest.raises(IntegrityError, match="not finite") as caught:
        parse(f'{{"a": [{number}]}}'.encode())
    assert caught.value.where == "test.json"


@pytest.mark.parametrize(
    "text", ['{"a": 1, "a": 1}', '{"x": {"a": 1, "b": 2, "a": 3}}', '[{"a": 1, "\\u0061": 2}]', '{"a":1,"a":1,"a":1}']
)
def test_a_key_named_twice_is_refused_and_named(text: str) -> None:
    with pytest.raises(IntegrityError, match="a key twice") as caught:
        parse(text.encode())
    assert caught.value.found == "'a'"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"{}{}",
        b"{'a': 1}",
        b'{"a": 1,}',
        b'"\xff"',
        b'{"a": 1}\x00',
        b"\xff\xfe{\x00}\x00",
        b"1" * 5000,
        b'"\\ud800"',
        b'{"\\udc00": 1}',
    ],
)
def test_what_is_not_json_is_refused(data: bytes) -> None:
    with pytest.raises(IntegrityError, match="not valid JSON"):
        parse(data)


def nested(depth: int) -> bytes:
    return b"[" * depth + b"]" * depth


def test_depth_is_limited() -> None:
    assert parse(nested(64)) == json.loads(nested(64))
    with pytest.raises(IntegrityError, match="nested too deeply"):
        parse(nested(65))
    mixed = b'{"a":' * 40 + b"[" * 40 + b"]" * 40 + b"}" * 40
    with pytest.raises(IntegrityError, match="nested too deeply"):
        parse(mixed)


def test_depth_beyond_the_interpreters_own_limit_is_an_ordinary_refusal() -> None:
    with pytest.raises(IntegrityError):
        parse(nested(200_000))


def test_size_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(canonical, "_MAX_BYTES", 10)
    assert parse(b'"1234567"\n') == "1234567"
    with pytest.raises(IntegrityError, match="implausibly large"):
        parse(b'"12345678"\n')


def test_files(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "a.json"
    write_json(path, {"b": 1, "a": (1, 2)})
    assert path.read_bytes() == dump_canonical({"a": [1, 2], "b": 1})
    assert read_json(path) == {"a": [1, 2], "b": 1}
    path.write_text("{")
    with pytest.raises(IntegrityError) as caught:
        read_json(path)
    assert caught.value.where == str(path)
    with pytest.raises(BadInputError, match="no such file"):
        read_json(tmp_path / "absent.json")


def test_a_value_that_cannot_be_written_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json(path, 1)
    with pytest.raises(DefectError):
        write_json(path, math.nan)
    assert read_json(path) == 1
