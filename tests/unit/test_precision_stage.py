"""Precision budgets on small networks: what is lifted, what is written, what a kill costs, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from explained_graphs import GRAPHS, ArrayImages, GraphBuilder, random_images
from precision_budgets import (
    CARD,
    MAPS,
    SPEC,
    Listening,
    PixelImages,
    chain,
    hard_activation,
    hard_weights,
    kept_by,
    request,
    smooth_pixels,
)

from edgekit.calibrate.formats import Range, number_format
from edgekit.calibrate.graph import parse_graph, read_graph
from edgekit.calibrate.options import CalibrateOptions
from edgekit.calibrate.placement import excluded_nodes
from edgekit.calibrate.qdq import serialise, write_qdq
from edgekit.calibrate.scale_table import ScaleTable, read_scales
from edgekit.calibrate.stage import CalibrateRequest, calibrate, quantise_graph
from edgekit.core.canonical import read_json, write_json
from edgekit.core.digests import digest_path
from edgekit.engines.half_graph import SOURCE_KEY
from edgekit.errors import BadInputError
from edgekit.policy.clauses import AgreementClause, MeanClause, ShareClause, UndefinedClause
from edgekit.precision.assignment import Operation, exclude_patterns, leaves_nothing, pattern_of, quantised_operations
from edgekit.precision.budget import budget_of, prepare
from edgekit.precision.costs import COSTS_FORMAT
from edgekit.precision.lifting import lifted_table
from edgekit.precision.options import BudgetOptions
from edgekit.precision.ranking import rank_operations
from edgekit.precision.request import BudgetRequest, EngineHere
from edgekit.precision.stage import find_budget
from edgekit.precision.yardstick import GraphYardstick, StoredYardstick

REFERENCE = EngineHere("reference")
IMPOSSIBLE = kept_by(MeanClause("cosine", 1.0))


def written(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): digest_path(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "record.json"
    }


def with_golden(wanted: BudgetRequest, teacher: Path) -> BudgetRequest:
    """Judged by the answers of another network."""
    pixels = PixelImages(smooth_pixels(100)[40:])
    return replace(wanted, yardstick=StoredYardstick(GraphYardstick(teacher, pixels, CARD, MAPS).golden()))


def test_int8_that_holds_is_left_alone(tmp_path: Path) -> None:
    wanted = request(tmp_path, chain())
    record = find_budget(wanted, tmp_path / "out")
    assert (record.facts["outcome"], record.facts["chosen"], record.facts["lifted"]) == ("pass", "int8", [])
    assert [item["name"] for item in record.facts["candidates"]] == ["int8", "fp32"]
    # It is what calibration alone writes.
    plain = CalibrateRequest(wanted.graph, wanted.images, wanted.number_format, wanted.calibration, wanted.input)
    calibrate(plain, tmp_path / "plain")
    for name in ("scales.json", "model.onnx", "calibration.json"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "plain" / name).read_bytes()


def test_exactly_the_layer_that_cannot_be_rounded_is_lifted(tmp_path: Path) -> None:
    record = find_budget(request(tmp_path, hard_weights(), engine=REFERENCE), tmp_path / "out")
    assert record.facts["lifted"] == ["node_Conv_4"]
    assert record.facts["chosen"] == "mixed-1"
    int8, mixed, fp32 = record.facts["candidates"]
    assert int8["drift"]["cosine"] > 0.01
    assert 1e-3 > mixed["drift"]["cosine"] > fp32["drift"]["cosine"]
    assert (int8["outcome"], mixed["outcome"], fp32["outcome"]) == ("fail", "pass", "pass")
    table = read_scales(tmp_path / "out" / "scales.json")
    assert table.provenance.exclude == ("node_Conv_4",)
    # An ordinary table: the graph follows from it.
    assert (tmp_path / "out" / "model.onnx").read_bytes() == serialise(
        write_qdq(read_graph(tmp_path / "fp32.onnx"), table)
    )


def test_a_tensor_that_cannot_be_rounded_lifts_both_of_its_neighbours(tmp_path: Path) -> None:
    record = find_budget(request(tmp_path, hard_activation()), tmp_path / "out")
    assert record.facts["lifted"] == ["node_Conv_2", "node_Conv_4"]
    document = read_json(tmp_path / "out" / "precision.json")
    assert [item["name"] for item in document["ranking"][:2]] == ["node_Conv_2", "node_Conv_4"]
    assert [(step["phase"], step["holds"]) for step in document["search"]] == [
        ("int8", False),
        ("lift", False),
        ("lift", True),
        ("lower", False),
    ]


def test_tensorrt_lifts_what_is_hard_and_says_what_was_not_run(tmp_path: Path) -> None:
    here = EngineHere("reference", of_target=False, told="the engine of 'a Jetson' does not run here")
    wanted = request(tmp_path, hard_weights(), engine=here, number_format="trt-s8s8")
    record = find_budget(wanted, tmp_path / "out")
    assert record.facts["lifted"] == ["node_Conv_4"]
    notes = "\n".join(record.facts["notes"])
    assert "FP16/FP32 left to the builder; not run on TensorRT" in notes
    assert "judged by the engine 'reference', not the target's" in notes
    assert "latency is not measured: the engine of 'a Jetson' does not run here; no cost table was given" in notes
    # What ships has a graph with FP16 types beside it, as what calibration alone writes.
    typed = onnx.load(tmp_path / "out" / "model.fp16.onnx")
    said = {item.key: item.value for item in typed.metadata_props}
    assert said == {SOURCE_KEY: digest_path(tmp_path / "out" / "model.onnx")}


def test_what_could_not_be_typed_is_in_record_and_summary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def beyond(*_: object, **__: object) -> None:
        raise BadInputError("a value is beyond their range")

    monkeypatch.setattr("edgekit.calibrate.half_copy.type_half", beyond)
    here = EngineHere("reference", of_target=False, told="not here")
    wanted = request(tmp_path, hard_weights(), engine=here, number_format="trt-s8s8")
    record = find_budget(wanted, tmp_path / "out")
    assert record.facts["fp16_types"] == {"written": False, "reason": "a value is beyond their range"}
    assert record.facts["summary"].endswith("no FP16 types for INT8 (a value is beyond their range)")


def test_a_processor_has_no_fp16(tmp_path: Path) -> None:
    record = find_budget(request(tmp_path, chain()), tmp_path / "out")
    assert "what is lifted is FP32: there is no FP16 on this target" in record.facts["notes"]
    assert read_json(tmp_path / "out" / "precision.json")["outside_int8"] == ["fp32"]


def test_no_lifted_operation_can_be_taken_back(tmp_path: Path) -> None:
    """On a network without one bad layer: the result is smallest, and the search went down again."""
    policy = kept_by(MeanClause("cosine", 0.9999))
    wanted = request(tmp_path, GRAPHS["padded-shortcut"](), policy, engine=REFERENCE)
    record = find_budget(wanted, tmp_path / "out")
    document = read_json(tmp_path / "out" / "precision.json")
    assert "lower" in {step["phase"] for step in document["search"]}
    lifted = record.facts["lifted"]
    assert 0 < len(lifted) < record.facts["operations"]
    table = read_scales(tmp_path / "out" / "scales.json")
    for name in lifted:
        fewer = tuple(pattern_of(other) for other in lifted if other != name)
        options = replace(wanted.calibration, exclude=fewer)
        again = find_budget(replace(wanted, calibration=options), tmp_path / "again")
        assert again.facts["candidates"][0]["outcome"] == "fail", name
    kept = replace(wanted, calibration=replace(wanted.calibration, exclude=table.provenance.exclude))
    assert find_budget(kept, tmp_path / "again").facts["candidates"][0]["outcome"] == "pass"


def test_what_only_fp32_keeps_is_fp32_and_says_so(tmp_path: Path) -> None:
    policy = kept_by(MeanClause("cosine", 0.99999999))
    record = find_budget(request(tmp_path, chain(), policy), tmp_path / "out")
    assert (record.facts["outcome"], record.facts["chosen"]) == ("pass", "fp32")
    assert "nothing is INT8" in record.facts["reason"]
    assert (tmp_path / "out" / "model.onnx").read_bytes() == (tmp_path / "fp32.onnx").read_bytes()
    assert "scales.json" not in record.outputs
    assert {"candidates/int8/scales.json", "candidates/int8/model.onnx"} <= set(record.outputs)


def test_a_policy_that_fp32_misses_keeps_the_best_candidates(tmp_path: Path) -> None:
    teacher = tmp_path / "teacher.onnx"
    teacher.write_bytes(chain(seed=9).SerializeToString())
    policy = kept_by(ShareClause("cosine", 0.99, 0.9), AgreementClause(0.5))
    wanted = with_golden(request(tmp_path, chain(), policy), teacher)
    record = find_budget(wanted, tmp_path / "out")
    assert (record.facts["outcome"], record.facts["chosen"]) == ("fail", None)
    assert "not even the FP32 graph keeps the policy" in record.facts["reason"]
    assert "share of samples with cosine >= 0.99" in record.facts["reason"]
    assert record.facts["teacher"] == "the golden set's teacher"
    assert {name for name in record.outputs if name.endswith(".onnx")} == {
        "candidates/fp32/model.onnx",
        "candidates/int8/model.onnx",
    }
    assert "model.onnx" not in record.outputs


def test_too_few_images_are_inconclusive(tmp_path: Path) -> None:
    policy = kept_by(MeanClause("cosine", 0.9), min_samples=61)
    record = find_budget(request(tmp_path, chain(), policy), tmp_path / "out")
    assert (record.facts["outcome"], record.facts["chosen"]) == ("inconclusive", None)
    assert "asks for at least 61 samples" in record.facts["reason"] or "61 samples" in record.facts["reason"]


def test_a_policy_stricter_than_fp32_against_itself_is_defined(tmp_path: Path) -> None:
    """Maps that are zero on both sides are no evidence, whoever compares them with themselves."""
    model = chain()
    for tensor in model.graph.initializer:
        if tensor.name == "constant_9":
            values = np.full(24, -1e3, dtype=np.float32)
            tensor.raw_data = values.tobytes()
    policy = kept_by(UndefinedClause(0.0), AgreementClause(0.5))
    record = find_budget(request(tmp_path, model, policy), tmp_path / "out")
    assert record.facts["outcome"] == "fail"
    assert "both zero" in record.facts["reason"]


@pytest.mark.parametrize("killed_at", [1, 2, 4])
def test_a_killed_search_goes_on_where_it_stood(
    tmp_path: Path, killed_at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = kept_by(MeanClause("cosine", 0.9999))
    wanted = request(tmp_path, GRAPHS["padded-shortcut"](), policy, engine=REFERENCE)
    fresh = find_budget(wanted, tmp_path / "fresh")
    with pytest.raises(KeyboardInterrupt):
        find_budget(wanted, tmp_path / "resumed", Listening(limit=killed_at))
    assert (tmp_path / "resumed.work").is_dir()
    from edgekit.precision import laboratory

    judged = []
    whole = laboratory.score_answers
    monkeypatch.setattr(laboratory, "score_answers", lambda *given: judged.append(1) or whole(*given))
    resumed = find_budget(wanted, tmp_path / "resumed")
    assert len(judged) == len(fresh.facts["candidates"]) - killed_at
    assert resumed.to_dict() == fresh.to_dict()
    assert written(tmp_path / "resumed") == written(tmp_path / "fresh")
    assert not (tmp_path / "resumed.work").exists()


def test_what_a_kill_left_damaged_is_measured_again(tmp_path: Path) -> None:
    wanted = request(tmp_path, hard_weights(), engine=REFERENCE)
    with pytest.raises(KeyboardInterrupt):
        find_budget(wanted, tmp_path / "out", Listening(limit=2))
    for path in (tmp_path / "out.work").rglob("candidate.json"):
        path.write_text("{}")
    assert find_budget(wanted, tmp_path / "out").facts["lifted"] == ["node_Conv_4"]


def test_the_same_request_is_not_done_again(tmp_path: Path) -> None:
    wanted, observer = request(tmp_path, chain()), Listening()
    first = find_budget(wanted, tmp_path / "out", observer)
    assert find_budget(wanted, tmp_path / "out", observer) == first
    assert observer.candidates == 2


@pytest.mark.parametrize(
    "change",
    [
        lambda old: replace(old, policy=kept_by(MeanClause("cosine", 0.99))),
        lambda old: replace(old, options=BudgetOptions(latency_runs=0, timed=4)),
        lambda old: replace(old, engine=REFERENCE),
        lambda old: replace(old, calibration=replace(old.calibration, method="percentile")),
        lambda old: replace(old, images=ArrayImages(random_images().pixels)),
        lambda old: replace(old, yardstick=replace(old.yardstick, images=PixelImages(smooth_pixels(60, seed=8)))),
    ],
    ids=["policy", "options", "engine", "method", "images", "judged"],
)
def test_whatever_changes_the_result_is_done_again(tmp_path: Path, change: Any) -> None:
    wanted, observer = request(tmp_path, chain()), Listening()
    first = find_budget(wanted, tmp_path / "out", observer)
    assert find_budget(change(wanted), tmp_path / "out", observer).key != first.key
    assert observer.candidates >= 4


def test_latency_is_measured_in_turns_on_the_engine(tmp_path: Path) -> None:
    wanted = request(tmp_path, hard_weights(), options=BudgetOptions(latency_runs=4))
    find_budget(wanted, tmp_path / "out")
    document = read_json(tmp_path / "out" / "precision.json")
    assert document["latency"]["source"] == "measured"
    timed = [item["name"] for item in document["candidates"] if item["latency_ms"] is not None]
    assert {"int8", "fp32"} <= set(timed) == set(document["latency"]["report"]["engines"])
    assert all(len(item["rounds_ms"]) == 4 for item in document["latency"]["report"]["engines"].values())
    assert set(document["frontier"]) <= set(timed)


def costs_file(folder: Path, costs: dict[str, dict[str, float]]) -> Path:
    path = folder / "costs.json"
    write_json(path, {"format": COSTS_FORMAT, "device": "a board", "measured": "its profiler", "costs": costs})
    return path


CONVOLUTIONS = tuple(f"node_Conv_{number}" for number in (0, 2, 4, 6, 8))


def test_a_cost_table_stands_in_for_a_device_that_is_not_here(tmp_path: Path) -> None:
    names = (*CONVOLUTIONS, "node_Gemm_12")
    costs = costs_file(tmp_path, {name: {"int8": 1.0, "fp32": 4.0} for name in names})
    away = EngineHere("reference", of_target=False, told="not here")
    record = find_budget(request(tmp_path, hard_weights(), engine=away, costs=costs), tmp_path / "out")
    assert {item["name"]: item["latency_ms"] for item in record.facts["candidates"]} == {
        "int8": 6.0,
        "mixed-1": 9.0,
        "fp32": 24.0,
    }
    assert record.facts["chosen"] == "mixed-1"
    assert record.facts["latency"]["told"].startswith("sum of 6 operations measured on a board (its profiler)")
    assert record.facts["notes"][0].startswith("judged by")


def test_a_cost_table_by_which_int8_is_slower_chooses_fp32(tmp_path: Path) -> None:
    names = (*CONVOLUTIONS, "node_Gemm_12")
    costs = costs_file(tmp_path, {name: {"int8": 2.0, "fp32": 1.0} for name in names})
    away = EngineHere("reference", of_target=False, told="not here")
    record = find_budget(request(tmp_path, chain(), engine=away, costs=costs), tmp_path / "out")
    assert record.facts["chosen"] == "fp32"
    assert record.facts["notes"][0] == (
        "int8 is SLOWER than FP32 by the cost table: it takes 2.00 times as long as fp32"
    )


def test_a_cost_table_that_lacks_an_operation_is_refused(tmp_path: Path) -> None:
    costs = costs_file(tmp_path, {name: {"int8": 2.0, "fp32": 1.0} for name in CONVOLUTIONS})
    with pytest.raises(BadInputError, match="does not say") as caught:
        find_budget(request(tmp_path, chain(), costs=costs), tmp_path / "out")
    assert "node_Gemm_12" in str(caught.value.where)


def test_a_graph_without_anything_to_quantise_is_refused(tmp_path: Path) -> None:
    options = CalibrateOptions(method="minmax", exclude=("*",))
    with pytest.raises(BadInputError, match="Nothing in the graph can be quantised"):
        find_budget(request(tmp_path, chain(), calibration=options), tmp_path / "out")


def test_a_single_operation_is_int8_or_fp32(tmp_path: Path) -> None:
    others = tuple(pattern_of(name) for name in (*CONVOLUTIONS[:2], *CONVOLUTIONS[3:], "node_Gemm_12"))
    options = CalibrateOptions(method="minmax", exclude=others)
    record = find_budget(request(tmp_path, hard_weights(), calibration=options, engine=REFERENCE), tmp_path / "out")
    assert record.facts["operations"] == 1
    assert record.facts["chosen"] == "fp32"
    assert [item["name"] for item in record.facts["candidates"]] == ["int8", "fp32"]


def test_no_images_are_refused(tmp_path: Path) -> None:
    none = ArrayImages(np.zeros((0, 3, 16, 16), dtype=np.float32))
    with pytest.raises(BadInputError, match="no calibration images"):
        find_budget(request(tmp_path, chain(), images=none), tmp_path / "out")


def test_a_graph_that_answers_nan_is_refused(tmp_path: Path) -> None:
    model = chain()
    # Behind every tensor that calibration sees.
    bias = next(item for item in model.graph.initializer if list(item.dims) == [5])
    bias.raw_data = np.full(5, np.nan, dtype=np.float32).tobytes()
    options = CalibrateOptions(method="minmax", exclude=("node_Gemm_12",))
    with pytest.raises(BadInputError, match="not finite"):
        find_budget(request(tmp_path, model, calibration=options), tmp_path / "out")


HOSTILE = ("a[0]*?", "a", "conv [!x]", "*", "\u202e[]")


def test_names_with_glob_characters_are_lifted_one_by_one(tmp_path: Path) -> None:
    record = find_budget(request(tmp_path, chain(HOSTILE, dead=2), engine=REFERENCE), tmp_path / "out")
    assert record.facts["lifted"] == [HOSTILE[2]]
    assert read_scales(tmp_path / "out" / "scales.json").provenance.exclude == ("conv [[]!x]",)


def test_operations_without_a_name_are_lifted_together(tmp_path: Path) -> None:
    model = chain(("x", "y", "", "", "z"), dead=2)
    record = find_budget(request(tmp_path, model, engine=REFERENCE), tmp_path / "out")
    assert record.facts["lifted"] == [""]
    assert record.facts["operations"] == 5


@pytest.mark.parametrize("name", [*HOSTILE, "[", "]", "[]", "?", "", "[[]", "plain.name/1"])
def test_a_pattern_matches_its_name_and_no_other(name: str) -> None:
    graph = parse_graph(chain((name, "other", "a0", "x", "conv !")).SerializeToString(), where="x")
    matched = {graph.nodes[index].name for index in excluded_nodes(graph, [pattern_of(name)])}
    assert matched == {name}


def table_of(name: str, fmt: str, exclude: tuple[str, ...] = ()) -> ScaleTable:
    graph = parse_graph(GRAPHS[name]().SerializeToString(), where=name)
    options = CalibrateOptions(method="minmax", exclude=exclude)
    return quantise_graph(graph, random_images(), number_format(fmt), options).table


@pytest.mark.parametrize("fmt", ["x86-u8s8", "arm-s8s8"])
@pytest.mark.parametrize("name", GRAPHS)
def test_a_lifted_table_is_what_calibrating_with_the_exclusions_gives(name: str, fmt: str) -> None:
    """Oracle: `calibrate` itself. Ranges of copies may be wider, since they are those of what they were copied from."""
    graph = parse_graph(GRAPHS[name]().SerializeToString(), where=name)
    full = quantise_graph(graph, random_images(), number_format(fmt), CalibrateOptions(method="minmax"))
    names = {graph.nodes[index].name for index in graph.forward}
    operations = quantised_operations(full.graph, full.placement, names, joins=True)
    assert len(operations) >= 3
    compared = 0
    for chosen in combinations([item.name for item in operations], 1 + len(operations) // 4):
        if leaves_nothing(operations, chosen) or compared == 20:
            continue
        compared += 1
        exclude = exclude_patterns((), chosen)
        ours, theirs = lifted_table(graph, full.table, exclude), table_of(name, fmt, exclude)
        assert ours is not None
        assert (ours.provenance, set(ours.activations)) == (theirs.provenance, set(theirs.activations))
        assert list(ours.weights) == list(theirs.weights)
        for tensor, entry in theirs.activations.items():
            found = ours.activations[tensor]
            copied = graph.nodes[graph.producer[tensor]].op_type in ("Pad", "Split") if tensor != "image" else False
            if not copied:
                assert found.scale == pytest.approx(entry.scale, rel=1e-5), (chosen, tensor)
            assert _covers(Range(found.low, found.high), Range(entry.low, entry.high)), (chosen, tensor)


def _covers(wide: Range, narrow: Range) -> bool:
    slack = 1e-5 * max(wide.amax, 1e-9)
    return wide.low <= narrow.low + slack and wide.high >= narrow.high - slack


def test_a_tensor_without_a_range_is_calibrated_anew(tmp_path: Path) -> None:
    """TensorRT rounds the shorter branch of an addition; lifting a convolution turns that to the other one."""
    wanted = request(tmp_path, GRAPHS["residual"](), number_format="trt-s8s8", engine=REFERENCE)
    yardstick = replace(wanted.yardstick, map_spec=replace(MAPS, height=4, width=4))
    prepared = prepare(wanted, tmp_path / "work")
    assert lifted_table(prepared.graph, prepared.table, ("node_Conv_10",)) is None
    _, laboratory = budget_of(wanted, prepared, yardstick.golden(), tmp_path / "work")
    candidate = laboratory.measure(frozenset({"node_Conv_10"}))
    assert candidate.recalibrated
    own = replace(wanted.calibration, exclude=("node_Conv_10",))
    expected = quantise_graph(prepared.graph, wanted.images, prepared.fmt, own, input_spec=SPEC)
    assert laboratory.files(candidate)[0].read_bytes() == serialise(expected.model)


def test_an_addition_can_be_lifted_under_tensorrts_rules(tmp_path: Path) -> None:
    """Its result is integers and its skip input is not: what would be a fault of placement is what was asked for."""
    wanted = request(tmp_path, GRAPHS["padded-shortcut"](), number_format="trt-s8s8", engine=REFERENCE)
    prepared = prepare(wanted, tmp_path / "work")
    addition = Operation("node_Add_7", "Add", (7,), weighted=False)
    with_addition = replace(prepared, operations=(*prepared.operations, addition))
    _, laboratory = budget_of(wanted, with_addition, wanted.yardstick.golden(), tmp_path / "work")
    candidate = laboratory.measure(frozenset({"node_Add_7"}))
    assert candidate.lifted == ("node_Add_7",)
    assert "node_Add_7" not in candidate.int8


def test_ranking_blames_what_was_made_hard() -> None:
    for model, worst in ((hard_weights(), {"node_Conv_4"}), (hard_activation(), {"node_Conv_2", "node_Conv_4"})):
        graph = parse_graph(model.SerializeToString(), where="x")
        images = random_images(24).pixels
        full = quantise_graph(graph, ArrayImages(images), number_format("x86-u8s8"), CalibrateOptions(method="minmax"))
        names = {graph.nodes[index].name for index in graph.forward}
        operations = quantised_operations(full.graph, full.placement, names, joins=True)
        ranking = rank_operations(graph, full.table, operations, images)
        assert {item.operation.name for item in ranking[: len(worst)]} == worst
        assert all(item.share > 0.5 for item in ranking[: len(worst)])
        assert all(item.share < 0.1 for item in ranking[len(worst) :])
        # Lifting the one alone mends a weight; of two that share a tensor each goes on rounding it.
        assert (ranking[0].remaining < 0.1) == (len(worst) == 1)


def test_shared_weights_are_lifted_where_they_are_read(tmp_path: Path) -> None:
    g = GraphBuilder(seed=2)
    x = g.relu(g.conv("image", 3, 16, stride=2))
    weight, bias = g.weight(16, 16, 3, 3), g.constant(g.rng.normal(0, 0.2, 16))
    for _ in range(2):
        x = g.relu(g.conv_with(x, weight, bias))
    g.pooled_head(x, 16, 5, 64)
    policy = kept_by(MeanClause("cosine", 0.99999))
    record = find_budget(request(tmp_path, g.model(), policy, engine=REFERENCE), tmp_path / "out")
    assert record.facts["outcome"] == "pass"
    assert record.facts["chosen"] != "int8"
