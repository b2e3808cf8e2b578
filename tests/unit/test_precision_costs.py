"""Cost tables: read strictly, summed over operations, and never guessed from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from edgekit.errors import BadInputError
from edgekit.precision.costs import COSTS_FORMAT, check_costs, read_costs

COSTS = {"conv1": {"int8": 1.0, "fp16": 2.0, "fp32": 4.0}, "conv2": {"int8": 3.0, "fp32": 2.5}, "pool": {"fp32": 0.5}}


def written(folder: Path, **changes: Any) -> Path:
    raw = {"format": COSTS_FORMAT, "device": "Orin", "measured": "trtexec", "costs": COSTS} | changes
    path = folder / "costs.json"
    path.write_text(json.dumps({key: value for key, value in raw.items() if value is not None}))
    return path


def test_it_is_read_as_written(tmp_path: Path) -> None:
    table = read_costs(written(tmp_path))
    assert (table.device, table.measured, table.costs) == ("Orin", "trtexec", COSTS)


def test_totals_are_sums_by_hand(tmp_path: Path) -> None:
    table = read_costs(written(tmp_path))
    assert table.total({"conv1", "conv2"}, ("fp32",)) == 1.0 + 3.0 + 0.5
    assert table.total({"conv1"}, ("fp32",)) == 1.0 + 2.5 + 0.5
    assert table.total(set(), ("fp32",)) == 4.0 + 2.5 + 0.5
    assert table.total(set(), ("fp16", "fp32")) == 2.0 + 2.5 + 0.5
    assert table.float_cost("pool", ("fp16",)) is None


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"format": "edgekit.costs/2"}, "format"),
        ({"format": None}, "costs.json"),
        ({"extra": 1}, "costs.json"),
        ({"device": ""}, "device"),
        ({"measured": 3}, "measured"),
        ({"costs": {}}, "costs"),
        ({"costs": []}, "costs"),
        ({"costs": {"conv1": {}}}, "conv1"),
        ({"costs": {"conv1": {"int4": 1.0}}}, "conv1"),
        ({"costs": {"conv1": {"int8": -1.0}}}, "conv1.int8"),
        ({"costs": {"conv1": {"int8": True}}}, "conv1.int8"),
        ({"costs": {"conv1": {"int8": "fast"}}}, "conv1.int8"),
    ],
)
def test_what_is_malformed_is_named(tmp_path: Path, change: dict[str, Any], named: str) -> None:
    with pytest.raises(BadInputError, match=r"cost table") as caught:
        read_costs(written(tmp_path, **change))
    assert named in str(caught.value.where)


@pytest.mark.parametrize("text", ["", "{", '{"format": NaN}', '{"a": 1, "a": 2}', '{"costs": 1e999}'])
def test_what_is_not_json_is_bad_input(tmp_path: Path, text: str) -> None:
    path = tmp_path / "costs.json"
    path.write_text(text)
    with pytest.raises(BadInputError):
        read_costs(path)


def test_a_missing_file_is_bad_input(tmp_path: Path) -> None:
    with pytest.raises(BadInputError):
        read_costs(tmp_path / "none.json")


def test_a_table_has_to_fit_the_graph(tmp_path: Path) -> None:
    table = read_costs(written(tmp_path))
    names = {"conv1", "conv2", "pool", "conv3"}
    check_costs(table, names, {"conv1", "conv2"}, ("fp32",), where="here")
    with pytest.raises(BadInputError, match="does not say") as caught:
        check_costs(table, names, {"conv1", "conv3"}, ("fp32",), where="here")
    assert "conv3" in str(caught.value.where)
    with pytest.raises(BadInputError, match="does not say") as caught:
        check_costs(table, names, {"pool"}, ("fp32",), where="here")
    assert caught.value.found == "fp32"
    with pytest.raises(BadInputError, match="does not say"):
        check_costs(table, names, {"conv2"}, ("fp16",), where="here")
    with pytest.raises(BadInputError, match="does not have") as caught:
        check_costs(table, {"conv1", "conv2", "Pool_7", "pool_"}, {"conv1"}, ("fp32",), where="here")
    assert "'pool'" in str(caught.value.found)
    assert "pool_" in str(caught.value.hint)
