"""Blame tensor by tensor: known faults come first, shared integers are one, and numbers add up."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from blame_bundles import SPEC, harmed_table, quantised, smooth_pixels
from explained_graphs import GRAPHS
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from onnx import ModelProto, numpy_helper

from edgekit.blame.options import METRICS, ORDERS, BlameOptions
from edgekit.blame.resampling import intervals, rank_ranges
from edgekit.blame.rounding import RoundingBench, own_classes
from edgekit.blame.tensors import Blame, blame_tensors
from edgekit.blame.units import units_of
from edgekit.calibrate.adjustments import Adjustments
from edgekit.calibrate.formats import NUMBER_FORMATS, number_format
from edgekit.calibrate.graph import ExplainedGraph, parse_graph
from edgekit.calibrate.placement import place
from edgekit.calibrate.scale_table import ScaleTable
from edgekit.errors import BadInputError, IntegrityError, UsageError
from edgekit.export.origin import set_origin
from edgekit.interface.preprocess import preprocess

IMAGES = preprocess(smooth_pixels(16), SPEC)


def parsed(name: str = "residual") -> ExplainedGraph:
    return parse_graph(GRAPHS[name]().SerializeToString(), where="test")


def bench_of(graph: ExplainedGraph, table: ScaleTable, images: np.ndarray = IMAGES) -> RoundingBench:
    return RoundingBench(graph, table, images, own_classes(graph, images, 1))


def blamed(graph: ExplainedGraph, table: ScaleTable, order: str = "overall", images: np.ndarray = IMAGES) -> Blame:
    bench = bench_of(graph, table, images)
    return blame_tensors(bench, own_classes(graph, images, 1)[:, 0].astype(np.int64), order=order)


# Units


def test_tensors_that_hold_the_same_integers_are_one_unit() -> None:
    graph = parsed("padded-shortcut")
    units = units_of(graph, place(graph, number_format("x86-u8s8")))
    shared = next(unit for unit in units if len(unit.tensors) > 1)
    assert shared.name == "relu_1"
    assert set(shared.tensors) == {"relu_1", "slice_2", "pad_3"}
    every = [name for unit in units for name in unit.tensors]
    assert len(every) == len(set(every))


@pytest.mark.parametrize("fmt", NUMBER_FORMATS)
@pytest.mark.parametrize("name", GRAPHS)
def test_units_hold_all_that_is_rounded_once_and_in_order(name: str, fmt: str) -> None:
    graph = parsed(name)
    placement = place(graph, number_format(fmt))
    units = units_of(graph, placement)
    tensors = [tensor for unit in units for tensor in unit.tensors]
    assert sorted(tensors) == sorted({*placement.activations, *(use.weight for use in placement.weights)})
    assert [unit.depth for unit in units] == sorted(unit.depth for unit in units)
    assert all(unit.depth == 0 for unit in units if unit.name == "image")
    biases = [bias for unit in units for bias in unit.biases]
    assert sorted(biases) == sorted({use.bias for use in placement.weights if use.bias is not None})


def test_units_bear_the_names_of_nodes_and_modules() -> None:
    model = GRAPHS["residual"]()
    set_origin(model.graph.node[3], "stage.0.conv1", ())
    graph = parse_graph(model.SerializeToString(), where="test")
    units = {unit.name: unit for unit in units_of(graph, place(graph, number_format("x86-u8s8")))}
    named = units[model.graph.node[3].input[1]]
    assert (named.kind, named.node, named.operation) == ("weight", "node_Conv_3", "Conv")
    assert named.module == "stage.0.conv1"
    assert units["image"].node is None
    assert units["relu_1"].module is None


# Known faults


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("name", ["image", "relu_4", "relu_9"])
def test_an_activation_with_a_scale_that_is_wrong_is_blamed_first(name: str, order: str) -> None:
    graph = parsed()
    sound = quantised(graph)
    found = blamed(graph, harmed_table(sound, name, 24.0), order)
    first = found.units[0]
    assert first.unit.name == name
    assert (first.rank, first.ranks.first, first.ranks.last) == (1, 1, 1)
    assert first.all_but["cosine"].mean < 0.25 * found.together["cosine"].mean
    # Everybody else's part is as small as ever.
    assert found.units[1].only["cosine"].mean < 0.1 * first.only["cosine"].mean


@pytest.mark.parametrize("fmt", NUMBER_FORMATS)
def test_a_weight_with_scales_that_are_wrong_is_blamed_first(fmt: str) -> None:
    graph = parsed()
    sound = quantised(graph, fmt)
    name = list(sound.weights)[3]
    found = blamed(graph, harmed_table(sound, name, 30.0))
    assert found.units[0].unit.name == name
    assert found.units[0].unit.kind == "weight"


def test_a_scale_that_shares_integers_is_blamed_as_one() -> None:
    graph = parsed("padded-shortcut")
    table = quantised(graph)
    for name in ("relu_1", "slice_2", "pad_3"):
        table = harmed_table(table, name, 24.0)
    assert blamed(graph, table).units[0].unit.tensors == ("relu_1", "slice_2", "pad_3")


# Numbers


def test_views_sums_and_intervals_add_up() -> None:
    graph = parsed()
    found = blamed(graph, quantised(graph))
    assert [item.rank for item in found.units] == list(range(1, len(found.units) + 1))
    assert [item.score.low for item in found.units] == sorted((item.score.low for item in found.units), reverse=True)
    assert sum(item.samples for item in found.classes) == found.samples == len(IMAGES)
    for metric in METRICS:
        together = sum(item.samples * item.together[metric] for item in found.classes) / found.samples
        assert together == pytest.approx(found.together[metric].mean)
        first = found.units[0]
        alone = sum(item.samples * item.only[first.unit.name][metric] for item in found.classes) / found.samples
        assert alone == pytest.approx(first.only[metric].mean)
    for metric, item in found.interactions.items():
        assert item.summed == pytest.approx(sum(unit.only[metric].mean for unit in found.units))
        assert item.together == pytest.approx(found.together[metric].mean)
    for unit in found.units:
        assert unit.ranks.first <= unit.ranks.last
        for interval in (unit.score, *unit.only.values(), *unit.all_but.values()):
            assert interval.low <= interval.mean <= interval.high
    json.dumps(found.to_dict(), allow_nan=False)


def test_the_same_images_give_the_same_blame() -> None:
    graph = parsed()
    table = quantised(graph)
    assert blamed(graph, table) == blamed(graph, table)


@given(arrays(np.float64, st.tuples(st.integers(1, 5), st.integers(1, 12)), elements=st.floats(0, 1)))
@settings(max_examples=40, deadline=None)
def test_intervals_hold_their_means_and_places_are_places(values: np.ndarray) -> None:
    for interval, row in zip(intervals(values), values, strict=True):
        assert interval.mean == pytest.approx(row.mean())
        assert row.min() - 1e-9 <= interval.low <= interval.mean <= interval.high <= row.max() + 1e-9
    for places in rank_ranges(values):
        assert 1 <= places.first <= places.last <= len(values)


def test_a_mean_that_hangs_on_one_image_is_ranked_by_what_is_sure() -> None:
    steady, single = np.full(40, 0.5), np.zeros(40)
    single[7] = 30.0
    first, second = intervals(np.stack([steady, single]))
    assert second.mean > first.mean
    assert second.low < first.low
    places = rank_ranges(np.stack([steady, single]))
    assert (places[0].first, places[0].last) == (1, 2)


def test_one_image_has_no_spread() -> None:
    graph = parsed()
    found = blamed(graph, quantised(graph), images=IMAGES[:1])
    only = found.units[0].only["cosine"]
    assert only.low == only.mean == only.high


def test_corrected_biases_are_no_tensors_fault() -> None:
    graph = parsed()
    table = quantised(graph)
    bias = next(name for unit in bench_of(graph, table).units for name in unit.biases)
    shift = tuple(0.3 for _ in graph.constant(bias))
    shifted = replace(table, adjustments=Adjustments(bias_shifts={bias: shift}))
    found = blamed(graph, shifted)
    # The shift moves the graph by itself, and that is said as such.
    assert found.adjusted["logits"] > 10 * max(item.only["logits"].mean for item in found.units)
    assert blamed(graph, table).adjusted["logits"] < 1e-9


# Bad input


def test_constant_images_have_no_drift_or_a_finite_one() -> None:
    graph = parsed()
    found = blamed(graph, quantised(graph), images=np.zeros((4, 3, 16, 16), np.float32))
    assert all(np.isfinite(item.score.mean) for item in found.units)


def test_no_images_are_refused() -> None:
    graph = parsed()
    with pytest.raises(BadInputError, match="no images"):
        RoundingBench(graph, quantised(graph), IMAGES[:0], np.zeros((0, 1), np.int32))


def test_another_graphs_table_is_refused() -> None:
    with pytest.raises(IntegrityError, match="another graph"):
        bench_of(parsed(), quantised(parsed("padded-shortcut")))


def test_a_table_by_which_nothing_is_finite_is_refused() -> None:
    graph = parsed()
    table = quantised(graph, "trt-s8s8")
    bias = [name for unit in bench_of(graph, table).units for name in unit.biases][-1]
    huge = Adjustments(bias_shifts={bias: tuple(3e38 for _ in graph.constant(bias))})
    with pytest.raises(IntegrityError, match="not finite"):
        bench_of(graph, replace(table, adjustments=huge))


def test_an_fp32_graph_that_answers_nothing_finite_is_refused() -> None:
    model: ModelProto = GRAPHS["residual"]()
    for tensor in model.graph.initializer:
        values = numpy_helper.to_array(tensor)
        if values.ndim == 4:
            tensor.CopyFrom(numpy_helper.from_array((values * 1e12).astype(np.float32), tensor.name))
    graph = parse_graph(model.SerializeToString(), where="test")
    table = quantised(parsed())
    own = replace(table, provenance=replace(table.provenance, graph=graph.digest))
    with pytest.raises(BadInputError, match="not finite"):
        RoundingBench(graph, own, IMAGES, np.zeros((16, 1), np.int32))


def test_an_unknown_order_is_refused() -> None:
    graph = parsed()
    with pytest.raises(BadInputError, match="ordered"):
        blamed(graph, quantised(graph), "beauty")


@pytest.mark.parametrize(
    "values",
    [
        {"samples": -1},
        {"order": "beauty"},
        {"exclude_worst": 0},
        {"until": ("beauty", 0.1)},
        {"until": ("cosine", -0.1)},
        {"until": ("cosine", float("nan"))},
    ],
)
def test_options_that_make_no_sense(values: dict[str, object]) -> None:
    with pytest.raises(BadInputError, match="Blame cannot work"):
        BlameOptions(**values)  # type: ignore[arg-type]


def test_a_list_is_made_one_way() -> None:
    with pytest.raises(UsageError):
        BlameOptions(exclude_worst=1, until=("cosine", 0.1))
