"""Steps between float and integers: counted by hand, found where they are put, and told to the user."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from explained_graphs import GRAPHS, GraphBuilder, random_images
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekit.calibrate.boundaries import count_boundaries
from edgekit.calibrate.formats import NUMBER_FORMATS, number_format
from edgekit.calibrate.graph import parse_graph
from edgekit.calibrate.options import CalibrateOptions
from edgekit.calibrate.stage import CalibrateRequest, calibrate, quantise_graph
from edgekit.core.progress import NullObserver
from edgekit.half.typed import type_half


def quantised(model: Any, fmt: str = "trt-s8s8", exclude: tuple[str, ...] = ()) -> Any:
    graph = parse_graph(model.SerializeToString(), where="built")
    options = CalibrateOptions(method="minmax", exclude=exclude)
    return quantise_graph(graph, random_images(), number_format(fmt), options).model


def chain(*middles: str) -> Any:
    """A convolution, operations, a convolution, ..., pooling, and a classifier that stays in float on TensorRT."""
    g = GraphBuilder()
    x = g.relu(g.conv("image", 3, 16))
    for middle in middles:
        x = g.relu(g.conv(g.op(middle, x), 16, 16))
    g.pooled_head(x, 16, 5, 256)
    return g.model()


@pytest.mark.parametrize(
    ("middles", "quantised_ops", "entries", "exits", "lone"),
    [
        ((), 1, 1, 1, 1),
        (("Relu", "Relu"), 3, 1, 1, 0),
        (("Sqrt",), 2, 2, 2, 2),
        (("Sqrt", "Relu"), 3, 2, 2, 1),
        (("Relu", "Sqrt"), 3, 2, 2, 1),
        (("Sqrt", "Sqrt"), 3, 3, 3, 3),
        (("Relu", "Sigmoid", "LeakyRelu"), 4, 1, 1, 0),
    ],
)
def test_what_is_counted_by_hand(
    middles: tuple[str, ...], quantised_ops: int, entries: int, exits: int, lone: int
) -> None:
    found = count_boundaries(quantised(chain(*middles)))
    assert (found.quantised, found.entries, found.exits, len(found.lone)) == (quantised_ops, entries, exits, lone)
    assert found.per_operation == (entries + exits) / quantised_ops


@pytest.mark.parametrize("fmt", NUMBER_FORMATS)
@pytest.mark.parametrize("name", GRAPHS)
def test_every_graph_enters_and_leaves_integers(name: str, fmt: str) -> None:
    found = count_boundaries(quantised(GRAPHS[name](), fmt))
    assert found.entries >= 1
    assert 1 <= found.exits <= found.quantised
    assert len(found.lone) <= found.quantised


def test_a_float_graph_has_none() -> None:
    found = count_boundaries(GRAPHS["residual"]())
    assert (found.quantised, found.entries, found.exits, found.per_operation) == (0, 0, 0, 0.0)


@settings(max_examples=12, deadline=None)
@given(name=st.sampled_from(["residual", "padded-shortcut", "depthwise-relu6", "dense-concat"]), data=st.data())
def test_leaving_an_operation_in_the_middle_in_float_adds_steps(name: str, data: st.DataObject) -> None:
    model = GRAPHS[name]()
    convolutions = [node.name for node in model.graph.node if node.op_type == "Conv"]
    middle = data.draw(st.sampled_from(convolutions[1:-1]))
    before, after = (count_boundaries(quantised(model, exclude=exclude)) for exclude in ((), (middle,)))
    assert after.quantised == before.quantised - 1
    assert after.entries + after.exits > before.entries + before.exits
    assert after.per_operation > before.per_operation


def test_fp16_types_move_none() -> None:
    for name in GRAPHS:
        model = quantised(GRAPHS[name]())
        assert count_boundaries(type_half(model).model) == count_boundaries(model)


def test_concatenations_of_several_scales_are_named() -> None:
    assert count_boundaries(quantised(GRAPHS["dense-concat"]())).requantised == ("node_Concat_10",)
    assert count_boundaries(quantised(GRAPHS["residual"]())).requantised == ()


class Listening(NullObserver):
    def __init__(self) -> None:
        self.notes: list[str] = []

    def noted(self, message: str) -> None:
        self.notes.append(message)


@pytest.mark.parametrize(("fmt", "told"), [("trt-s8s8", True), ("x86-u8s8", False)])
def test_the_stage_counts_them_and_warns_where_the_rule_is_the_runtimes(fmt: str, told: bool, tmp_path: Path) -> None:
    graph = tmp_path / "fp32.onnx"
    graph.write_bytes(chain("Sqrt").SerializeToString())
    listening = Listening()
    request = CalibrateRequest(graph, random_images(), fmt, CalibrateOptions(method="minmax"))
    facts = calibrate(request, tmp_path / "out", listening).facts
    assert facts["boundaries"]["quantised"] >= 2
    assert facts["boundaries_per_operation"] == pytest.approx(facts["boundaries"]["per_operation"], abs=1e-4)
    assert "steps between float and integers an operation" in str(facts["summary"])
    assert any("float on both sides" in note and "node_Conv" in note for note in listening.notes) is told
