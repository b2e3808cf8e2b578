"""The exclude list: fed back, what it names stays in float and the drift falls to what was said."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np
import pytest
from blame_bundles import SPEC, harmed_table, quantised, smooth_pixels
from explained_graphs import GRAPHS, ArrayImages
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import ModelProto

from edgekit.blame.exclusion import Exclusion, ExclusionStep, exclude_until, exclude_worst, nodes_that_round
from edgekit.blame.resampling import Interval
from edgekit.blame.rounding import RoundingBench, own_classes
from edgekit.blame.tensors import Blame, blame_tensors
from edgekit.blame.write import exclude_yaml
from edgekit.calibrate.adjusted import apply_adjustments
from edgekit.calibrate.adjustments import Adjustments
from edgekit.calibrate.calibrator import CALIBRATORS
from edgekit.calibrate.drift import drift_of
from edgekit.calibrate.formats import NUMBER_FORMATS, Range, number_format
from edgekit.calibrate.graph import PIXELS, ExplainedGraph, parse_graph
from edgekit.calibrate.input_grid import grid_of, grid_range
from edgekit.calibrate.observers import ActivationStream
from edgekit.calibrate.options import CalibrateOptions
from edgekit.calibrate.placement import place
from edgekit.calibrate.probe import answers_of
from edgekit.calibrate.scale_table import Provenance, ScaleTable, table_from_ranges
from edgekit.calibrate.solution import Solution
from edgekit.calibrate.stage import quantise_graph
from edgekit.config.recipe import read_recipe
from edgekit.core.progress import NULL_OBSERVER
from edgekit.errors import BadInputError
from edgekit.interface.preprocess import preprocess

IMAGES = preprocess(smooth_pixels(16), SPEC)
CALIBRATION = ArrayImages(preprocess(smooth_pixels(16, seed=9), SPEC))
METRICS = ("cosine", "spearman", "iou", "logits", "flips")


def parsed(model: ModelProto | str = "residual") -> ExplainedGraph:
    made = GRAPHS[model]() if isinstance(model, str) else model
    return parse_graph(made.SerializeToString(), where="test")


def examined(graph: ExplainedGraph, table: ScaleTable) -> tuple[RoundingBench, Blame]:
    classes = own_classes(graph, IMAGES, 1)
    bench = RoundingBench(graph, table, IMAGES, classes)
    return bench, blame_tensors(bench, classes[:, 0].astype(np.int64))


def only_first(found: Blame, name: str) -> Blame:
    """The blame with one unit put first."""
    return replace(found, units=tuple(sorted(found.units, key=lambda item: item.unit.name != name)))


def with_names(names: dict[str, str]) -> ModelProto:
    model = GRAPHS["residual"]()
    for node in model.graph.node:
        node.name = names.get(node.name, node.name)
    return model


@pytest.mark.parametrize("fmt", NUMBER_FORMATS)
@pytest.mark.parametrize("name", ["residual", "depthwise-relu6", "shuffled", "gated", "padded-shortcut"])
def test_fed_back_the_list_keeps_its_nodes_in_float_and_the_drift_falls_as_said(name: str, fmt: str) -> None:
    graph = parsed(name)
    table = quantised(graph, fmt)
    bench, found = examined(graph, table)
    list_of = exclude_worst(bench, found, 2)
    options = CalibrateOptions(method="minmax", exclude=list_of.patterns)
    again = quantise_graph(graph, CALIBRATION, number_format(fmt), options)
    excluded = {node for step in list_of.steps for node in step.nodes}
    assert excluded
    left = {graph.nodes[index].name for index in again.placement.left_float}
    quantised_now = {graph.nodes[index].name for index in again.placement.quantised}
    assert excluded <= left
    assert not excluded & quantised_now
    for step in list_of.steps:
        assert step.unit not in {*again.table.activations, *again.table.weights}
        assert not {*step.floats} & {*again.table.activations, *again.table.weights}
    classes = own_classes(graph, IMAGES, 1)[:, 0]
    drift = drift_of(answers_of(graph.model, IMAGES, classes), answers_of(again.model, IMAGES, classes))
    assert drift.cosine < found.together["cosine"].mean
    if not any(step.unscaled for step in list_of.steps):
        assert drift.cosine == pytest.approx(list_of.steps[-1].left["cosine"].mean, rel=0.1, abs=2e-5)


@pytest.mark.parametrize("fmt", NUMBER_FORMATS)
@pytest.mark.parametrize("name", GRAPHS)
def test_whatever_is_excluded_is_rounded_no_more_and_no_node_is_listed_in_vain(name: str, fmt: str) -> None:
    graph = parsed(name)
    bench, found = examined(graph, quantised(graph, fmt))
    done = 0
    for item in found.units:
        list_of = exclude_worst(bench, only_first(found, item.unit.name), 1)
        if not list_of.steps:
            assert "nothing would be left" in list_of.skipped[item.unit.name]
            continue
        done += 1
        (step,) = list_of.steps

        def still_rounded(nodes: tuple[str, ...], tensors: tuple[str, ...] = item.unit.tensors) -> bool:
            placement = place(graph, number_format(fmt), nodes)
            rounded = {*placement.activations, *(use.weight for use in placement.weights)}
            return not rounded.isdisjoint(tensors)

        assert not still_rounded(step.nodes)
        for node in step.nodes:
            fewer = tuple(other for other in step.nodes if other != node)
            assert not fewer or still_rounded(fewer)
    assert done > len(found.units) / 2


def test_what_a_bad_scale_costs_is_won_back() -> None:
    graph = parsed()
    bench, found = examined(graph, harmed_table(quantised(graph), "relu_9", 24.0))
    list_of = exclude_worst(bench, found, 1)
    assert list_of.steps[0].unit == "relu_9"
    assert list_of.steps[0].left["cosine"].mean < 0.25 * found.together["cosine"].mean


def test_until_stops_at_the_first_list_that_is_enough() -> None:
    graph = parsed()
    bench, found = examined(graph, quantised(graph))
    wanted = 0.5 * found.together["cosine"].mean
    list_of = exclude_until(bench, found, "cosine", wanted)
    assert list_of.reached is True
    assert list_of.steps[-1].left["cosine"].mean <= wanted
    assert all(step.left["cosine"].mean > wanted for step in list_of.steps[:-1])


def test_what_holds_already_excludes_nothing() -> None:
    graph = parsed()
    bench, found = examined(graph, quantised(graph))
    list_of = exclude_until(bench, found, "cosine", 1.0)
    assert list_of.reached is True
    assert list_of.patterns == ()


def test_what_cannot_be_reached_ends_with_all_that_could_be_done() -> None:
    graph = parsed()
    bench, found = examined(graph, quantised(graph))
    list_of = exclude_until(bench, found, "logits", 0.0)
    assert list_of.reached is False
    placement = place(graph, bench.probe.fmt, list_of.patterns)
    assert len(placement.weights) == 1
    assert set(list_of.skipped.values()) == {"without it nothing would be left to quantise"}


@pytest.mark.parametrize(("metric", "value"), [("beauty", 0.1), ("cosine", -1.0), ("cosine", float("nan"))])
def test_drift_that_makes_no_sense_is_refused(metric: str, value: float) -> None:
    graph = parsed()
    bench, found = examined(graph, quantised(graph))
    with pytest.raises(BadInputError):
        exclude_until(bench, found, metric, value)


def test_more_than_there_are_is_all_of_them() -> None:
    graph = parsed()
    bench, found = examined(graph, quantised(graph))
    assert exclude_worst(bench, found, 1000).steps


def test_what_was_excluded_before_stays_on_the_list() -> None:
    graph = parsed()
    bench, found = examined(graph, quantised(graph, exclude=("node_Conv_0",)))
    list_of = exclude_worst(bench, found, 1)
    assert list_of.before == ("node_Conv_0",)
    assert list_of.patterns[0] == "node_Conv_0"
    assert len(list_of.patterns) > 1


def test_corrections_of_an_error_that_is_gone_are_gone_too() -> None:
    graph = parsed()
    table = quantised(graph)
    bench, found = examined(graph, table)
    unit = next(item.unit for item in found.units if item.unit.kind == "weight" and item.unit.biases)
    shifts = {unit.biases[0]: tuple(0.3 for _ in graph.constant(unit.biases[0]))}
    shifted, _ = examined(graph, replace(table, adjustments=Adjustments(bias_shifts=shifts)))
    sound, moved = (exclude_worst(each, only_first(found, unit.name), 1).steps[0] for each in (bench, shifted))
    assert moved.left["logits"].mean == pytest.approx(sound.left["logits"].mean, rel=1e-2)


# Names


def test_names_that_are_patterns_match_only_themselves() -> None:
    graph = parsed(with_names({"node_Conv_3": "conv[0-9]*?", "node_Conv_0": "conv5xx"}))
    bench, found = examined(graph, quantised(graph))
    unit = next(item.unit for item in found.units if item.unit.node == "conv[0-9]*?" and item.unit.kind == "weight")
    list_of = exclude_worst(bench, only_first(found, unit.name), 1)
    assert list_of.steps[0].nodes == ("conv[0-9]*?",)
    assert fnmatchcase("conv[0-9]*?", list_of.patterns[0])
    assert not fnmatchcase("conv5xx", list_of.patterns[0])
    placement = place(graph, bench.probe.fmt, list_of.patterns)
    assert [why for why in placement.left_float.values() if "excluded" in why] == [
        f"excluded by {list_of.patterns[0]!r}"
    ]


def test_an_operation_without_a_name_cannot_be_excluded() -> None:
    graph = parsed(with_names({"node_Conv_3": ""}))
    bench, found = examined(graph, quantised(graph))
    weight = graph.nodes[3].input[1]
    list_of = exclude_worst(bench, only_first(found, weight), 1)
    assert not list_of.steps
    assert list_of.skipped == {weight: "an operation that rounds it has no name of its own"}


def test_the_operations_of_a_tensor_are_who_makes_and_who_reads_it() -> None:
    graph = parsed()
    bench, _ = examined(graph, quantised(graph))
    units = {unit.name: unit for unit in bench.units}
    names = {
        name: [graph.nodes[index].name for index in nodes_that_round(graph, bench.placement, units[name])]
        for name in ("image", "relu_4")
    }
    assert names == {"image": ["node_Conv_0"], "relu_4": ["node_Conv_3", "node_Conv_5"]}


def listed(nodes: tuple[str, ...]) -> Exclusion:
    left = {metric: Interval(0.0, 0.0, 0.0) for metric in METRICS}
    return Exclusion((), (ExclusionStep("unit", nodes, (), (), left),), {})


@given(st.lists(st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=12), max_size=4))
@settings(max_examples=60, deadline=None)
def test_the_recipe_says_the_same_names_whatever_they_are(names: list[str]) -> None:
    list_of = listed(tuple(names))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "exclude.yaml"
        path.write_text(exclude_yaml(list_of), encoding="ascii")
        recipe = read_recipe(path)
    assert recipe.calibrate.exclude == list_of.patterns
    assert recipe.calibrate.method in CALIBRATORS.names()
    for name, pattern in zip(dict.fromkeys(names), list_of.patterns, strict=True):
        assert fnmatchcase(name, pattern)


@pytest.mark.parametrize(
    "name", ['": {evil: 1}', "a\nb: c", "\x1b[31m", "{{ 7 * 7 }}", "# comment", "é\u2028\x7f\U0001f600"]
)
def test_hostile_names_stay_names_in_the_recipe(name: str, tmp_path: Path) -> None:
    path = tmp_path / "exclude.yaml"
    path.write_text(exclude_yaml(listed((name,))), encoding="ascii")
    (pattern,) = read_recipe(path).calibrate.exclude
    assert fnmatchcase(name, pattern)


@pytest.mark.parametrize("name", GRAPHS)
def test_every_list_can_be_built_for_tensorrt(name: str) -> None:
    graph = parsed(name)
    bench, found = examined(graph, quantised(graph, "trt-s8s8"))
    for item in found.units:
        list_of = exclude_worst(bench, only_first(found, item.unit.name), 1)
        options = CalibrateOptions(method="minmax", exclude=list_of.patterns)
        quantise_graph(graph, CALIBRATION, number_format("trt-s8s8"), options)


@pytest.mark.parametrize("fmt", NUMBER_FORMATS)
@pytest.mark.parametrize("name", ["residual", "depthwise-relu6", "shuffled"])
def test_a_graph_that_rounds_pixels_has_lists_of_the_exported_graphs_names(name: str, fmt: str) -> None:
    spec = replace(SPEC, mean=(0.4, 0.5, 0.45), std=(0.2, 0.25, 0.3))
    graph, wanted = parsed(name), number_format(fmt)
    adjustments = Adjustments(input_grid=grid_of(spec, wanted))
    assert adjustments.input_grid is not None
    adjusted = apply_adjustments(graph, adjustments)
    placement = place(adjusted, wanted)
    images = ArrayImages(preprocess(smooth_pixels(16, seed=9), spec))
    extremes = ActivationStream(adjusted, placement.observed, images, 16, NULL_OBSERVER).extremes()
    ranges = {tensor: Range(stats.low, stats.high) for tensor, stats in extremes.items()} | {PIXELS: grid_range(wanted)}
    origin = Provenance(graph.digest, "0" * 64, "minmax", {})
    table = table_from_ranges(adjusted, placement, wanted, Solution(ranges, adjustments=adjustments), origin)
    shown = preprocess(smooth_pixels(16), spec)
    classes = own_classes(graph, shown, 1)
    bench = RoundingBench(graph, table, shown, classes)
    found = blame_tensors(bench, classes[:, 0].astype(np.int64))
    pixels = next(item for item in found.units if item.unit.name == PIXELS)
    assert pixels.unit.kind == "activation"
    assert found.adjusted["cosine"] < 1e-5
    for item in found.units:
        list_of = exclude_worst(bench, only_first(found, item.unit.name), 1)
        assert place(graph, wanted, list_of.patterns).weights
    if fmt != "trt-s8s8":
        # Pixels are on their grid already: what little is left is the grey of the padding.
        assert pixels.only["cosine"].mean < 0.1 * found.together["cosine"].mean
