"""Answers, localisation and statistics against small cases worked out by hand and slow definitions."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekit.errors import DefectError
from edgekit.metrics import localisation
from edgekit.metrics.classification import Tally, accuracy, agreement, class_table, sigmoid, softmax, top_class
from edgekit.metrics.localisation import LOCALISATION, centre_prior, score_localisation
from edgekit.metrics.scores import ScoreTable
from edgekit.metrics.statistics import Summary, clopper_pearson, mean, quantiles, samples_to_decide, summarise


def test_softmax_is_its_definition_and_survives_large_logits() -> None:
    logits = np.array([[0.0, math.log(3.0)], [1e30, 1e30], [-1e4, 1e4]], dtype=np.float32)
    assert softmax(logits).tolist()[1:] == [[0.5, 0.5], [0.0, 1.0]]
    np.testing.assert_allclose(softmax(logits)[0], [0.25, 0.75], atol=1e-7)


def test_sigmoid_is_its_definition_and_survives_large_logits() -> None:
    values = sigmoid(np.array([[0.0, math.log(3.0), -math.log(3.0), 1e30, -1e30]]))
    np.testing.assert_allclose(values, [[0.5, 0.75, 0.25, 1.0, 0.0]], atol=1e-15)


def test_answers_that_are_not_finite_are_no_answers() -> None:
    logits = np.array([[1.0, 2.0, 2.0], [np.nan, 5.0, 1.0], [1.0, np.inf, 0.0], [-3.0, -1.0, -2.0]], dtype=np.float32)
    assert top_class(logits).tolist() == [1, -1, -1, 1]
    assert np.isnan(softmax(logits)).all(axis=1).tolist() == [False, True, True, False]
    assert np.isnan(sigmoid(logits)).all(axis=1).tolist() == [False, True, True, False]


LABEL = np.array([0, 0, 1, -1, 2, 2])
TEACHER = np.array([0, 1, 1, 1, 2, 0])
ENGINE = np.array([0, 0, -1, 1, 2, 2])


def test_accuracy_is_over_known_labels_and_agreement_over_all() -> None:
    assert accuracy(LABEL, TEACHER) == Tally(3, 5)
    assert accuracy(LABEL, ENGINE) == Tally(4, 5)
    assert agreement(TEACHER, ENGINE) == Tally(3, 6)
    assert agreement(np.array([-1]), np.array([-1])) == Tally(0, 1)
    assert accuracy(LABEL[3:4], TEACHER[3:4]).share is None
    assert Tally(3, 4).share == 0.75


def small_table() -> ScoreTable:
    cosine = np.array([1.0, 0.5, 0.25, 0.75, np.nan, -1.0])
    return ScoreTable(
        sample=tuple("abcdef"),
        label=LABEL,
        teacher_class=TEACHER,
        engine_class=ENGINE,
        state=("scored", "scored", "scored", "scored", "both_zero", "non_finite"),
        metrics={"cosine": cosine},
        own_class_metrics={},
        localisation={},
    )


def test_the_class_table_by_label() -> None:
    rows = class_table(small_table(), 4)
    assert [(row.index, row.support, row.compared) for row in rows] == [(0, 2, 2), (1, 1, 1), (2, 2, 1), (3, 0, 0)]
    assert rows[0].to_dict() == {
        "index": 0,
        "support": 2,
        "teacher_accuracy": 0.5,
        "engine_accuracy": 1.0,
        "agreement": 0.5,
        "compared": 2,
        "metrics": {"cosine": 0.75},
    }
    assert (rows[1].engine, rows[1].agreement) == (Tally(0, 1), Tally(0, 1))
    assert rows[2].metrics == {"cosine": -1.0}
    assert rows[3].metrics == {"cosine": None}
    assert rows[3].teacher.share is None


def test_the_class_table_by_the_teachers_class_holds_samples_without_a_label() -> None:
    rows = class_table(small_table(), 3, by="teacher-class")
    assert [row.support for row in rows] == [2, 3, 1]
    assert rows[1].metrics == {"cosine": 0.5}
    assert rows[1].teacher == Tally(1, 2)
    with pytest.raises(DefectError, match="key"):
        class_table(small_table(), 3, by="colour")  # type: ignore[arg-type]


def whole_mask(height: int, width: int, *cells: tuple[int, int]) -> np.ndarray:
    mask = np.zeros((height, width), dtype=np.bool_)
    for cell in cells:
        mask[cell] = True
    return mask


def localised(one: list[list[float]], mask: np.ndarray) -> dict[str, float]:
    found = score_localisation(np.array([one], dtype=np.float32), mask[None])
    assert list(found) == list(LOCALISATION)
    return {name: float(values[0]) for name, values in found.items()}


def test_localisation_by_hand() -> None:
    mask = whole_mask(2, 2, (0, 0), (0, 1))
    # Of the four pairs inside/outside, (4, 1) (4, 3) and (2, 1) are in order and (2, 3) is not.
    assert localised([[4.0, 2.0], [1.0, 3.0]], mask) == pytest.approx(
        {"pixel-auc": 3 / 4, "pointing": 1.0, "energy-inside": 6 / 10}
    )
    tied = localised([[4.0, 2.0], [2.0, 4.0]], mask)
    assert tied == pytest.approx({"pixel-auc": 0.5, "pointing": 0.5, "energy-inside": 0.5})
    signed = localised([[4.0, -2.0], [-1.0, 1.0]], mask)
    assert signed == pytest.approx({"pixel-auc": 0.5, "pointing": 1.0, "energy-inside": 0.8})


def test_localisation_rules() -> None:
    mask = whole_mask(6, 4, (0, 0), (1, 0), (5, 3))
    assert localised([[0.0, 0.0]], mask) == {"pixel-auc": 0.5, "pointing": 0.0, "energy-inside": 0.0}
    assert localised([[1.0, np.nan]], mask) == dict.fromkeys(LOCALISATION, 0.0)
    flat = localised([[0.7, 0.7], [0.7, 0.7]], mask)
    assert flat == pytest.approx({"pixel-auc": 0.5, "pointing": 3 / 24, "energy-inside": 3 / 24})
    assert all(math.isnan(value) for value in localised([[1.0]], np.zeros((4, 4), dtype=np.bool_)).values())
    everything = localised([[1.0, 2.0]], np.ones((3, 4), dtype=np.bool_))
    assert math.isnan(everything["pixel-auc"])
    assert everything["pointing"] == 1.0
    assert everything["energy-inside"] == pytest.approx(1.0)


def test_localisation_happens_at_the_size_of_the_mask() -> None:
    one = np.zeros((1, 2, 2), dtype=np.float32)
    one[0, 1, 1] = 1.0
    corner = np.zeros((1, 8, 8), dtype=np.bool_)
    corner[0, 4:, 4:] = True
    found = score_localisation(one, corner)
    assert found["pointing"].tolist() == [1.0]
    # Weights along one axis of 8 read from 2 cells: 0 0 1/8 3/8 | 5/8 7/8 1 1, of which 7/8 lies in the second half.
    assert found["energy-inside"][0] == pytest.approx((3.5 / 4) ** 2)


def test_localisation_chunks_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(1)
    maps, masks = rng.random((9, 3, 3)), rng.random((9, 6, 6)) < 0.3
    masks[4] = False
    whole = score_localisation(maps, masks)
    monkeypatch.setattr(localisation, "_CHUNK_PIXELS", 72)
    for name, values in score_localisation(maps, masks).items():
        assert np.array_equal(values, whole[name], equal_nan=True)
        assert np.isnan(values).tolist() == [row == 4 for row in range(9)]


def test_localisation_refuses_arrays_that_do_not_fit() -> None:
    with pytest.raises(DefectError, match="do not fit"):
        score_localisation(np.zeros((2, 3, 3)), np.zeros((3, 6, 6), dtype=np.bool_))
    with pytest.raises(DefectError, match="do not fit"):
        score_localisation(np.zeros((2, 3, 3)), np.zeros((2, 6, 6)))  # type: ignore[arg-type]


@pytest.mark.parametrize(("height", "width"), [(1, 1), (7, 7), (4, 10)])
def test_the_centre_prior_knows_nothing_but_the_centre(height: int, width: int) -> None:
    prior = centre_prior(height, width)
    assert prior.shape == (height, width)
    assert (prior > 0).all()
    assert prior.max() <= 1
    np.testing.assert_allclose(prior, prior[::-1, ::-1], atol=1e-15)
    assert prior[height // 2, width // 2] == prior.max()
    assert centre_prior(9, 9)[4, 4] == 1.0


def test_faultless_samples_that_show_95_percent() -> None:
    assert clopper_pearson(59, 59, 0.95).lower >= 0.95
    assert clopper_pearson(58, 58, 0.95).lower < 0.95
    assert clopper_pearson(59, 59, 0.95).lower == pytest.approx(0.05 ** (1 / 59), abs=1e-14)
    assert samples_to_decide(1.0, 0.95, 0.95) == 59
    assert samples_to_decide(1.0, 0.90, 0.95) == 29


def test_bounds_at_the_edges() -> None:
    assert clopper_pearson(0, 0, 0.95) == (0.0, 1.0)
    assert clopper_pearson(0, 9, 0.95).lower == 0.0
    assert clopper_pearson(9, 9, 0.95).upper == 1.0
    for successes, n, confidence in ((3, 2, 0.95), (-1, 2, 0.95), (1, 2, 1.0), (1, 2, 0.0), (1, 2, math.nan)):
        with pytest.raises(DefectError, match="impossible"):
            clopper_pearson(successes, n, confidence)


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 400), st.data(), st.sampled_from([0.6, 0.95, 0.999]))
def test_bounds_enclose_the_observed_share_mirror_and_grow(n: int, data: st.DataObject, confidence: float) -> None:
    successes = data.draw(st.integers(0, n))
    lower, upper = clopper_pearson(successes, n, confidence)
    assert lower <= successes / n <= upper
    mirrored = clopper_pearson(n - successes, n, confidence)
    assert mirrored.lower == pytest.approx(1 - upper, abs=1e-12)
    surer = clopper_pearson(successes, n, (1 + confidence) / 2)
    assert surer.lower <= lower
    assert surer.upper >= upper


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 60), st.data(), st.sampled_from([0.5, 0.8, 0.95]), st.sampled_from([0.8, 0.95]))
def test_more_samples_are_needed_exactly_when_the_ones_there_do_not_decide(
    n: int, data: st.DataObject, required: float, confidence: float
) -> None:
    successes = data.draw(st.integers(0, n))
    bounds = clopper_pearson(successes, n, confidence)
    needed = samples_to_decide(successes / n, required, confidence)
    decided = bounds.lower >= required + 1e-12 or bounds.upper < required - 1e-12
    assert decided == (needed is not None and needed <= n)


def test_no_sample_decides_between_equal_shares() -> None:
    assert samples_to_decide(0.9, 0.9, 0.95) is None
    assert samples_to_decide(0.9 + 1e-7, 0.9, 0.95) is None
    with pytest.raises(DefectError, match="impossible"):
        samples_to_decide(0.9, 1.0, 0.95)


def test_the_mean_is_exactly_rounded() -> None:
    values = np.array([1e16, 1.0, -1e16, 1.0])
    assert mean(values) == 0.5
    for bad in (np.array([]), np.array([1.0, np.nan]), np.array([np.inf])):
        with pytest.raises(DefectError, match="statistic"):
            mean(bad)
        with pytest.raises(DefectError, match="statistic"):
            quantiles(bad, [0.5])


def test_a_summary_leaves_out_what_has_no_value_and_says_how_much_is_left() -> None:
    summary = summarise(np.array([np.nan, *np.arange(101.0)]))
    assert summary == Summary(101, 50.0, 0.0, 1.0, 5.0, 50.0, 95.0, 99.0, 100.0)
    assert summary.to_dict()["p5"] == 5.0
    assert summarise(np.array([np.nan])) is None
