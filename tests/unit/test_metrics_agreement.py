"""The table of agreement metrics: properties that each must have, and the rules for degenerate maps."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from edgekit.errors import BadInputError, DefectError, IntegrityError
from edgekit.metrics import agreement
from edgekit.metrics.agreement import METRICS, metric_named, score_agreement
from edgekit.metrics.scores import STATES

QUICK = settings(deadline=None, max_examples=20)
SIDES = st.tuples(st.integers(1, 5), st.integers(1, 8))


@st.composite
def map_pairs(draw: st.DrawFn, values: st.SearchStrategy[float]) -> tuple[np.ndarray, np.ndarray]:
    """Two stacks of comparable maps of one shape; each map has a cell that is not zero."""
    shape = (draw(st.integers(1, 2)), *draw(SIDES))
    pair = [draw(hnp.arrays(np.float64, shape, elements=values)) for _ in range(2)]
    for maps in pair:
        maps[~maps.any(axis=(1, 2)), -1, 0] = 1.0
    return pair[0], pair[1]


# Whole numbers make ties common, and scaling by a power of two cannot create or break one.
WHOLE = map_pairs(st.integers(0, 6).map(float))
SIGNED = map_pairs(st.floats(-1e12, 1e12).map(lambda value: 0.0 if abs(value) < 1e-12 else value))


@pytest.mark.parametrize("metric", METRICS.values(), ids=METRICS)
@QUICK
@given(pair=SIGNED)
def test_values_lie_in_the_range_that_is_declared(metric, pair) -> None:
    values = metric.function(*pair)
    assert values.dtype == np.float64
    assert values.shape == (len(pair[0]),)
    assert metric.within_range(values).all()


@pytest.mark.parametrize("metric", METRICS.values(), ids=METRICS)
@QUICK
@given(pair=SIGNED)
def test_identical_maps_get_the_best_value(metric, pair) -> None:
    np.testing.assert_allclose(metric.function(pair[0], pair[0].copy()), metric.best, rtol=0, atol=1e-12)


@pytest.mark.parametrize("metric", METRICS.values(), ids=METRICS)
@QUICK
@given(pair=WHOLE, exponent=st.integers(-40, 40))
def test_scale_does_not_matter(metric, pair, exponent: int) -> None:
    teacher, engine = pair
    expected = metric.function(teacher, engine)
    np.testing.assert_allclose(metric.function(teacher, engine * 2.0**exponent), expected, rtol=0, atol=1e-12)
    np.testing.assert_allclose(metric.function(teacher * 3.0, engine), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("metric", METRICS.values(), ids=METRICS)
@QUICK
@given(pair=SIGNED)
def test_teacher_and_engine_may_change_places(metric, pair) -> None:
    np.testing.assert_allclose(metric.function(*pair), metric.function(*pair[::-1]), rtol=0, atol=1e-12)


@pytest.mark.parametrize("metric", METRICS.values(), ids=METRICS)
@QUICK
@given(pair=WHOLE)
def test_flipping_both_maps_changes_nothing_so_ties_are_not_settled_by_position(metric, pair) -> None:
    flipped = [maps[:, ::-1, ::-1] for maps in pair]
    np.testing.assert_allclose(metric.function(*flipped), metric.function(*pair), rtol=0, atol=1e-9)


@pytest.mark.parametrize("metric", METRICS.values(), ids=METRICS)
def test_a_moved_map_is_worse_than_a_kept_one(metric) -> None:
    teacher = np.exp(-((np.indices((7, 7)) - 2) ** 2).sum(axis=0) / 3)[None]
    values = metric.function(np.repeat(teacher, 2, axis=0), np.concatenate([teacher, np.roll(teacher, 2, axis=2)]))
    assert metric.reaches(values, metric.best - 1e-9 if metric.better == "higher" else 1e-9).tolist() == [True, False]


@pytest.mark.parametrize("metric", METRICS.values(), ids=METRICS)
def test_the_table_is_coherent(metric) -> None:
    assert METRICS[metric.name] is metric
    assert (metric.best > metric.worst) == (metric.better == "higher")
    assert metric.description
    nothing = np.array([np.nan])
    assert not metric.reaches(nothing, metric.worst)[0]
    assert not metric.within_range(nothing)[0]


def test_the_registered_metrics_are_the_documented_ones_in_order() -> None:
    names = ["argmax-distance", "cosine", "iou-top20", "js-divergence", "pearson", "spearman", "ssim"]
    assert list(METRICS) == names
    with pytest.raises(BadInputError, match="cosin") as caught:
        metric_named("cosin")
    assert caught.value.expected == "one of " + ", ".join(names)


@pytest.mark.parametrize("metric", METRICS.values(), ids=METRICS)
def test_a_row_does_not_depend_on_its_neighbours(metric) -> None:
    rng = np.random.default_rng(2)
    teacher, engine = rng.gamma(0.7, size=(2, 9, 7, 7))
    alone = [metric.function(teacher[i : i + 1], engine[i : i + 1])[0] for i in range(9)]
    assert metric.function(teacher, engine).tolist() == alone


BUMP = np.array([[0.0, 1.0, 0.0], [2.0, 5.0, 1.0], [0.0, 0.0, 0.0]])
ZERO, FLAT = np.zeros((3, 3)), np.full((3, 3), 4.0)
BROKEN = np.where(BUMP == 5, np.nan, BUMP)
INFINITE = np.where(BUMP == 5, -np.inf, BUMP)


def scored(teacher: np.ndarray, engine: np.ndarray) -> tuple[str, dict[str, float]]:
    states, metrics = score_agreement(teacher[None].astype(np.float32), engine[None].astype(np.float32))
    return states[0], {name: float(values[0]) for name, values in metrics.items()}


def test_rule_1_two_zero_maps_have_no_value() -> None:
    state, values = scored(ZERO, ZERO * -1.0)
    assert state == "both_zero"
    assert set(values) == set(METRICS)
    assert all(np.isnan(value) for value in values.values())


@pytest.mark.parametrize(
    ("teacher", "engine", "expected"),
    [
        (ZERO, BUMP, "one_zero"),
        (BUMP, ZERO, "one_zero"),
        (FLAT, ZERO, "one_zero"),
        (BUMP, BROKEN, "non_finite"),
        (BUMP, INFINITE, "non_finite"),
        (ZERO, BROKEN, "non_finite"),
    ],
)
def test_rules_2_and_3_a_lost_map_gets_the_worst_of_every_metric(teacher, engine, expected) -> None:
    state, values = scored(teacher, engine)
    assert state == expected
    assert values == {name: metric.worst for name, metric in METRICS.items()}


def test_rule_3_a_yardstick_that_is_not_finite_is_an_error() -> None:
    with pytest.raises(IntegrityError, match="teacher") as caught:
        scored(BROKEN, BUMP)
    assert caught.value.found == "1 of 1 maps"


def test_rule_4_constant_maps() -> None:
    state, both = scored(FLAT, FLAT / 8)
    assert state == "scored"
    assert both == pytest.approx({name: metric.best for name, metric in METRICS.items()})
    state, one = scored(BUMP, FLAT)
    assert state == "scored"
    assert one["pearson"] == one["spearman"] == 0.0
    # 2 of 9 cells: each cell of the flat map is chosen to 2/9, so 4/9 is shared of 2 + 7 * 2/9.
    assert one["iou-top20"] == pytest.approx((4 / 9) / (2 + 14 / 9))
    assert one["argmax-distance"] == 0.0
    assert scored(FLAT, BUMP)[1] == pytest.approx(one)


def test_rule_5_maps_of_one_cell() -> None:
    state, values = scored(np.array([[3.0]]), np.array([[0.1]]))
    assert state == "scored"
    assert values == {name: metric.best for name, metric in METRICS.items()}


def test_almost_zero_is_not_zero_and_nearly_constant_is_not_constant() -> None:
    tiny = BUMP * 1e-40
    state, values = scored(BUMP, tiny)
    assert state == "scored"
    assert values["cosine"] == pytest.approx(1.0, abs=1e-6)
    level = np.full((3, 3), 1e6)
    level[1, 1] = np.nextafter(np.float64(1e6), np.inf)
    _, metrics = score_agreement(BUMP[None], level[None], ["pearson"])
    lone = np.zeros((1, 3, 3))
    lone[0, 1, 1] = 1.0
    assert metrics["pearson"][0] == pytest.approx(METRICS["pearson"].function(BUMP[None], lone)[0], abs=1e-9)


def test_signed_maps_without_positive_values_have_no_distribution() -> None:
    js = METRICS["js-divergence"].function
    assert js(-BUMP[None], -BUMP[None] * 2).tolist() == [0.0]
    assert js(-BUMP[None], BUMP[None]).tolist() == [1.0]


def test_mostly_zero_maps_do_not_agree_on_cells_that_neither_points_at() -> None:
    teacher, engine = np.zeros((2, 1, 10, 10))
    teacher[0, 0, 0] = engine[0, 9, 9] = 1.0
    # 20 of 100 cells: each its own, and 19 places shared among the 99 zeros.
    shared = 2 * 19 / 99 + 98 * 19 / 99
    assert METRICS["iou-top20"].function(teacher, engine)[0] == pytest.approx((100 * 19 / 99) / (40 - shared))
    dense = np.random.default_rng(0).random((1, 10, 10)) + 0.1
    assert METRICS["iou-top20"].function(teacher, dense)[0] < 0.2


def mixed(count: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(count)
    teacher = rng.gamma(0.7, size=(count, 4, 5)).astype(np.float32)
    engine = (teacher * rng.uniform(0.6, 1.4, size=teacher.shape)).astype(np.float32)
    teacher[::7] = 0
    engine[::5] = 0
    engine[3::11, 1, 1] = np.inf
    return teacher, engine


@pytest.mark.parametrize("cells", [20, 60, 1 << 16])
def test_chunks_do_not_show_in_the_result(cells: int, monkeypatch: pytest.MonkeyPatch) -> None:
    teacher, engine = mixed(40)
    states, metrics = score_agreement(teacher, engine)
    assert set(states) == set(STATES)
    monkeypatch.setattr(agreement, "_CHUNK_CELLS", cells)
    again = score_agreement(teacher, engine)
    assert again.states == states
    for name, values in metrics.items():
        assert np.array_equal(again.metrics[name], values, equal_nan=True)
        assert np.array_equal(np.isnan(values), np.array(states) == "both_zero")


def test_some_metrics_may_be_asked_for_and_no_samples_are_no_fault() -> None:
    teacher, engine = mixed(6)
    assert list(score_agreement(teacher, engine, ["ssim", "cosine"]).metrics) == ["ssim", "cosine"]
    states, metrics = score_agreement(teacher[:0], engine[:0])
    assert states == ()
    assert all(values.shape == (0,) for values in metrics.values())
    with pytest.raises(BadInputError, match="no metric"):
        score_agreement(teacher, engine, ["sim"])


@pytest.mark.parametrize(
    ("teacher", "engine"),
    [
        (np.zeros((2, 3, 3)), np.zeros((2, 3, 4))),
        (np.zeros((2, 3, 3)), np.zeros((1, 3, 3))),
        (np.zeros((3, 3)), np.zeros((3, 3))),
        (np.zeros((2, 0, 3)), np.zeros((2, 0, 3))),
        (np.zeros((2, 3, 3)), np.zeros((2, 3, 3), dtype=np.int64)),
    ],
)
def test_stacks_that_do_not_fit_are_a_defect(teacher, engine) -> None:
    with pytest.raises(DefectError, match="cannot be compared"):
        score_agreement(teacher, engine)


@pytest.mark.parametrize("metric", METRICS.values(), ids=METRICS)
@pytest.mark.parametrize("bad", [ZERO, BROKEN, INFINITE], ids=["zero", "nan", "infinite"])
def test_a_metric_refuses_degenerate_maps_rather_than_guess(metric, bad) -> None:
    with pytest.raises(DefectError, match="score_agreement"):
        metric.function(BUMP[None], bad[None])
