"""Documents that people write: one meaning, or refused."""

from __future__ import annotations

import builtins
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from edgekit.config.documents import load_document, parse_yaml
from edgekit.errors import BadInputError, UnavailableError

PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    # Printable text: the YAML writer itself has no form for some control characters.
    | st.text(st.characters(exclude_categories=("C", "Zl", "Zp")), max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abcd", min_size=1), inner, max_size=3),
    max_leaves=10,
)


def parsed(text: str) -> dict[str, Any]:
    return parse_yaml(text.encode(), where="t.yaml")


@given(st.dictionaries(st.text("xyz", min_size=1), PLAIN, max_size=4))
def test_what_json_says_yaml_says_too(value: dict[str, Any]) -> None:
    # JSON is a subset of YAML 1.2, and a second writer to hold the reader against.
    assert parsed(json.dumps(value, ensure_ascii=False)) == value


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("1e-4", 1e-4),
        ("1E5", 1e5),
        ("-2.5e+3", -2500.0),
        (".5", 0.5),
        ("3.", 3.0),
        ("010", 10),
        ("09", 9),
        ("-7", -7),
        ("12:30:00", "12:30:00"),
        ("1_000", "1_000"),
        ("0x1F", "0x1F"),
        ("2024-01-31", "2024-01-31"),
        ("yes", "yes"),
        ("off", "off"),
        ("True", True),
        ("~", None),
        ("", None),
        ("'1'", "1"),
        ("e5", "e5"),
    ],
)
def test_scalars_are_read_as_in_yaml_1_2(written: str, meant: object) -> None:
    value = parsed(f"key: {written}\n")["key"]
    assert value == meant
    assert type(value) is type(meant)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: 1\na: 2\n", "'a' twice"),
        ("a: {b: 1, b: 2}\n", "'b' twice"),
        ("a: &x 1\nb: *x\n", "alias"),
        ("1: a\n", "not text"),
        ("true: a\n", "not text"),
        ("? [a]\n: b\n", "not text"),
        ("a: !!python/object/apply:os.system [x]\n", "tag"),
        ("a: !!binary aGVsbG8=\n", "bytes"),
        ("a: !!set {b: null}\n", "set"),
        ("a: .nan\n", "not finite"),
        ("a: [1, -.inf]\n", "a[1]"),
        ("a: 1e999\n", "not finite"),
        ("- a\n- b\n", "list"),
        ("just text\n", "str"),
        ("", "nothing"),
        ("---\na: 1\n---\nb: 2\n", "YAML"),
        ('a: "\\ud800"\n', "not Unicode"),
        ('"\\ud83d\\ude00": 1\n', "not Unicode"),
        ("a: [1, 2\n", "YAML"),
        ("a: '\x01'\n", "YAML"),
        ("a:\n" + "".join(" " * n + "-\n" for n in range(1, 60)), "deeply"),
        ("a: " + "[" * 5000, "YAML"),
        ("a: " + "9" * 5000, "YAML"),
    ],
)
def test_what_means_more_than_one_thing_or_none_is_refused(text: str, said: str) -> None:
    with pytest.raises(BadInputError, match="(?s)" + said.replace("[", r"\[")):
        parsed(text)


def test_a_merge_key_is_a_key_like_any_other() -> None:
    assert parsed("a:\n  <<: {b: 1}\n") == {"a": {"<<": {"b": 1}}}


def test_a_few_lines_cannot_stand_for_gigabytes() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 10)]
    with pytest.raises(BadInputError, match="alias"):
        parsed("\n".join(lines))


def test_the_line_is_named() -> None:
    with pytest.raises(BadInputError) as raised:
        parsed("a: 1\nb: 2\na: 3\n")
    assert raised.value.where == "t.yaml, line 3"


def test_text_that_is_not_utf8_is_refused() -> None:
    with pytest.raises(BadInputError):
        parse_yaml(b"a: \xff\xfe\n", where="t.yaml")


@pytest.mark.parametrize("name", ["d.yaml", "d.YML", "d.json"])
def test_both_notations_give_the_same(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_text('{"a": [1, 2.5, null, "x"]}', encoding="utf-8")
    assert load_document(path) == {"a": [1, 2.5, None, "x"]}


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("d.json", '{"a": 1, "a": 2}'),
        ("d.json", '{"a": NaN}'),
        ("d.json", "[1]"),
        ("d.json", "{"),
        ("d.json", " " * 300_000),
        ("d.yaml", " " * 300_000),
        ("d.txt", "a: 1"),
        ("d", "a: 1"),
    ],
)
def test_files_that_are_not_documents_are_bad_input(name: str, content: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_text(content, encoding="utf-8")
    with pytest.raises(BadInputError) as raised:
        load_document(path)
    assert str(path) in str(raised.value.where)


def test_a_missing_file_is_bad_input(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="no such file"):
        load_document(tmp_path / "absent.yaml")


def test_without_pyyaml_json_is_read_and_yaml_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    real = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name == "yaml":
            raise ModuleNotFoundError("No module named 'yaml'", name="yaml")
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    (tmp_path / "p.json").write_text('{"a": 1}', encoding="utf-8")
    assert load_document(tmp_path / "p.json") == {"a": 1}
    (tmp_path / "p.yaml").write_text("a: 1", encoding="utf-8")
    with pytest.raises(UnavailableError, match="pyyaml"):
        load_document(tmp_path / "p.yaml")


def test_the_safe_loader_of_others_is_left_as_it_was() -> None:
    parsed("a: 1e-4\n")
    assert yaml.safe_load("a: 1e-4\nb: yes\nc: 010") == {"a": "1e-4", "b": True, "c": 8}
