"""Plain-text tables: columns line up whatever is in them."""

from __future__ import annotations

import json

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekit.cli.tables import print_json, render_facts, render_table, style_outcome

CELL = st.text(alphabet=st.characters(codec="ascii", categories=("L", "N", "P")), min_size=1, max_size=12)


def test_a_table_by_hand() -> None:
    table = render_table(("metric", "mean"), [("cosine", 0.9921), ("IoU", 0.5)], right=("mean",))
    assert table.splitlines() == ["metric    mean", "------  ------", "cosine  0.9921", "IoU        0.5"]


@given(st.lists(st.tuples(CELL, CELL, CELL), max_size=6), st.sampled_from([(), ("b",), ("a", "c")]))
def test_every_column_begins_and_ends_at_one_place(rows: list[tuple[str, str, str]], right: tuple[str, ...]) -> None:
    lines = render_table(("a", "b", "c"), rows, right=right).splitlines()
    assert len(lines) == len(rows) + 2
    begin = 0
    for column, rule in enumerate(lines[1].split("  ")):
        shown = [line[begin : begin + len(rule)].strip() for line in lines[2:]]
        assert shown == [row[column] for row in rows]
        begin += len(rule) + 2


def test_colour_does_not_move_columns() -> None:
    plain = render_table(("state", "x"), [("pass", 1), ("inconclusive", 2)])
    styled = render_table(("state", "x"), [(style_outcome("pass"), 1), (style_outcome("inconclusive"), 2)])
    assert click.unstyle(styled) == plain
    assert styled != plain


def test_a_row_of_another_length_is_refused() -> None:
    with pytest.raises((ValueError, IndexError)):
        render_table(("a", "b"), [("only one",)])


def test_facts_line_up() -> None:
    assert render_facts({"a": 1, "long name": "x"}) == "a          1\nlong name  x"
    assert render_facts({}) == ""


def test_json_is_one_document_on_standard_output(capsys: pytest.CaptureFixture[str]) -> None:
    print_json({"b": [1.5, None], "a": "ä"})
    assert json.loads(capsys.readouterr().out) == {"a": "ä", "b": [1.5, None]}
