"""The scale table: canonical, strict, complete."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from explained_graphs import random_images, residual
from hypothesis import given
from hypothesis import strategies as st

from edgekit.calibrate.formats import NUMBER_FORMATS, Range, activation_params
from edgekit.calibrate.graph import parse_graph
from edgekit.calibrate.options import CalibrateOptions
from edgekit.calibrate.scale_table import (
    ActivationScale,
    Provenance,
    ScaleTable,
    WeightScale,
    read_scales,
    write_scales,
)
from edgekit.calibrate.stage import quantise_graph
from edgekit.errors import IntegrityError


@pytest.fixture(scope="module")
def table() -> ScaleTable:
    graph = parse_graph(residual().SerializeToString(), where="test")
    options = CalibrateOptions(method="percentile", percentile=99.9, exclude=("node_Gemm_*",))
    return quantise_graph(graph, random_images(), NUMBER_FORMATS["x86-u8s8"], options).table


def test_it_is_read_back_as_it_was_written(table: ScaleTable, tmp_path: Path) -> None:
    write_scales(tmp_path / "scales.json", table)
    again = read_scales(tmp_path / "scales.json")
    assert again == table
    assert again.to_bytes() == (tmp_path / "scales.json").read_bytes()


def test_it_says_what_it_was_made_from(table: ScaleTable) -> None:
    raw = json.loads(table.to_bytes())
    assert raw["format"] == "edgekit.scales/1"
    assert raw["method"] == {"name": "percentile", "parameters": {"percentile": 99.9, "bins": 2048}}
    assert raw["exclude"] == ["node_Gemm_*"]
    assert len(raw["graph"]) == len(raw["images"]) == 64


@given(
    low=st.floats(-1e6, 0, width=32),
    high=st.floats(0, 1e6, width=32),
    scales=st.lists(st.floats(2.0**-60, 1e6, width=32), max_size=5),
    fmt=st.sampled_from(sorted(NUMBER_FORMATS)),
)
def test_numbers_survive_json(low: float, high: float, scales: list[float], fmt: str) -> None:
    params = activation_params(Range(low, high), NUMBER_FORMATS[fmt])
    table = ScaleTable(
        fmt,
        Provenance("g", "i", "minmax", {}),
        {"t": ActivationScale(low, high, params.scale, params.zero_point)},
        {"w": WeightScale(0, tuple(scales))},
    )
    again = ScaleTable.from_dict(json.loads(table.to_bytes()), where="test")
    assert again == table
    assert np.float32(again.activations["t"].scale) == np.float32(params.scale)


def changed(path: str, value: Any) -> Callable[[dict[str, Any]], None]:
    def change(raw: dict[str, Any]) -> None:
        *parents, last = path.split(".")
        for key in parents:
            raw = raw[key]
        raw[last] = value

    return change


@pytest.mark.parametrize(
    "change",
    [
        changed("format", "edgekit.scales/2"),
        changed("number_format", "fp4"),
        changed("graph", 3),
        changed("surprise", 1),
        changed("exclude", "node"),
        changed("method", {"name": "minmax"}),
        changed("activations.image.scale", 0.0),
        changed("activations.image.scale", -0.5),
        changed("activations.image.scale", 0.1),
        changed("activations.image.scale", True),
        changed("activations.image.scale", "1"),
        changed("activations.image.zero_point", 256),
        changed("activations.image.zero_point", 1.0),
        changed("activations.image.low", 0.5),
        changed("activations.image.extra", 0.5),
        changed("activations.image", [1, 2]),
        changed("weights.constant_0.scales", [1e400]),
        changed("weights.constant_0.scales", 1.0),
        changed("weights.constant_0.axis", "0"),
        changed("weights", None),
    ],
    ids=lambda change: str(change.__closure__[0].cell_contents) + "=" + str(change.__closure__[1].cell_contents),
)
def test_anything_malformed_is_refused(table: ScaleTable, change: Callable[[dict[str, Any]], None]) -> None:
    raw = json.loads(table.to_bytes())
    change(raw)
    with pytest.raises(IntegrityError) as raised:
        ScaleTable.from_dict(raw, where="scales.json")
    assert "scales.json" in str(raised.value.where)


def test_a_missing_key_is_refused(table: ScaleTable) -> None:
    for key in json.loads(table.to_bytes()):
        raw = json.loads(table.to_bytes())
        del raw[key]
        with pytest.raises(IntegrityError):
            ScaleTable.from_dict(raw, where="scales.json")


def test_a_zero_point_of_a_symmetric_format_is_zero(table: ScaleTable) -> None:
    raw = json.loads(table.to_bytes()) | {"number_format": "trt-s8s8"}
    raw["activations"] = {"image": {"low": -1.0, "high": 1.0, "scale": 0.5, "zero_point": 1}}
    with pytest.raises(IntegrityError, match="zero point"):
        ScaleTable.from_dict(raw, where="scales.json")
