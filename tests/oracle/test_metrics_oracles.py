"""Every metric against its definition in slow loops, and against scipy and scikit-image."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import spatial, stats
from skimage.metrics import structural_similarity

from edgekit.metrics.agreement import METRICS
from edgekit.metrics.localisation import score_localisation
from edgekit.metrics.ranks import average_ranks
from edgekit.metrics.statistics import clopper_pearson, quantiles, samples_to_decide

SHAPES = [(2, 2), (1, 5), (3, 3), (4, 4), (7, 7), (5, 8), (8, 8), (14, 14), (9, 20)]


def pairs(shape: tuple[int, int], kind: str) -> tuple[np.ndarray, np.ndarray]:
    """Six pairs of maps: unlike, alike, scaled, and with many ties and zeros, as quantised ReLU maps have."""
    rng = np.random.default_rng(list(shape))
    teacher = rng.gamma(0.7, size=(6, *shape))
    engine = teacher * rng.uniform(0.5, 1.5, size=teacher.shape)
    engine[3:] = rng.gamma(0.7, size=engine[3:].shape)
    if kind == "tied":
        teacher, engine = np.floor(teacher * 2), np.floor(engine * 2)
        teacher[:, 0, 0] = engine[:, -1, -1] = 3
    if kind == "signed":
        teacher, engine = teacher - 0.7, engine - 0.6
    return teacher, engine * 37.5


EVERY = [(shape, kind) for shape in SHAPES for kind in ("plain", "tied", "signed")]


def computed(name: str, shape: tuple[int, int], kind: str, dtype: type = np.float64) -> np.ndarray:
    teacher, engine = pairs(shape, kind)
    return METRICS[name].function(teacher.astype(dtype), engine.astype(dtype))


def one_by_one(shape: tuple[int, int], kind: str, function) -> list[float]:
    return [function(a, b) for a, b in zip(*pairs(shape, kind), strict=True)]


@pytest.mark.parametrize(("shape", "kind"), EVERY)
def test_cosine_is_scipys(shape, kind) -> None:
    expected = one_by_one(shape, kind, lambda a, b: 1 - spatial.distance.cosine(a.ravel(), b.ravel()))
    np.testing.assert_allclose(computed("cosine", shape, kind), expected, atol=1e-12)


def not_constant(a: np.ndarray, b: np.ndarray) -> bool:
    return bool(np.ptp(a) > 0 and np.ptp(b) > 0)


@pytest.mark.parametrize(("shape", "kind"), EVERY)
def test_correlations_are_scipys(shape, kind) -> None:
    for name, function in (("pearson", stats.pearsonr), ("spearman", stats.spearmanr)):
        expected = one_by_one(
            shape, kind, lambda a, b, f=function: f(a.ravel(), b.ravel()).statistic if not_constant(a, b) else math.nan
        )
        found = computed(name, shape, kind)
        defined = ~np.isnan(expected)
        assert defined.any()
        np.testing.assert_allclose(found[defined], np.array(expected)[defined], atol=1e-12, err_msg=name)


def test_ranks_are_scipys() -> None:
    rows = np.random.default_rng(3).integers(0, 6, size=(20, 31)).astype(np.float64)
    assert np.array_equal(average_ranks(rows), stats.rankdata(rows, axis=1))
    assert average_ranks(rows[:, :1]).tolist() == [[1.0]] * 20


@pytest.mark.parametrize(("shape", "kind"), EVERY)
def test_ssim_is_scikit_images(shape, kind) -> None:
    side = max(side for side in (1, 3, 5, 7) if side <= min(shape))

    def reference(a: np.ndarray, b: np.ndarray) -> float:
        if side == 1:  # scikit-image demands windows of at least 3 cells; there SSIM is its luminance term
            a, b = a / np.abs(a).max(), b / np.abs(b).max()
            return float(np.mean((2 * a * b + 1e-4) / (a * a + b * b + 1e-4)))
        return structural_similarity(
            a / np.abs(a).max(),
            b / np.abs(b).max(),
            win_size=side,
            data_range=1.0,
            use_sample_covariance=False,
            gaussian_weights=False,
        )

    np.testing.assert_allclose(computed("ssim", shape, kind), one_by_one(shape, kind, reference), atol=1e-10)


def slow_iou(a: np.ndarray, b: np.ndarray) -> float:
    """Degrees of membership by going down the distinct values until the places are used up."""

    def degrees(one: np.ndarray) -> list[float]:
        cells = one.ravel().tolist()
        left, degree = float(max(1, round(0.2 * len(cells)))), {}
        for value in sorted(set(cells), reverse=True):
            held = cells.count(value)
            degree[value] = min(1.0, left / held)
            left = max(0.0, left - held)
        return [degree[value] for value in cells]

    first, second = degrees(a), degrees(b)
    return sum(map(min, first, second)) / sum(map(max, first, second))


@pytest.mark.parametrize(("shape", "kind"), EVERY)
def test_iou_is_its_definition(shape, kind) -> None:
    np.testing.assert_allclose(computed("iou-top20", shape, kind), one_by_one(shape, kind, slow_iou), atol=1e-12)


@pytest.mark.parametrize("shape", SHAPES)
def test_without_ties_iou_is_that_of_two_sets_of_cells(shape) -> None:
    def of_sets(a: np.ndarray, b: np.ndarray) -> float:
        k = max(1, round(0.2 * a.size))
        first, second = (set(np.argsort(-one.ravel())[:k].tolist()) for one in (a, b))
        return len(first & second) / len(first | second)

    np.testing.assert_allclose(computed("iou-top20", shape, "plain"), one_by_one(shape, "plain", of_sets))


@pytest.mark.parametrize(("shape", "kind"), EVERY)
def test_js_divergence_is_scipys_distance_squared(shape, kind) -> None:
    def reference(a: np.ndarray, b: np.ndarray) -> float:
        p, q = np.clip(a, 0, None).ravel(), np.clip(b, 0, None).ravel()
        if not (p.any() and q.any()):
            return 0.0 if p.any() == q.any() else 1.0
        return float(spatial.distance.jensenshannon(p, q, base=2)) ** 2

    np.testing.assert_allclose(
        computed("js-divergence", shape, kind), one_by_one(shape, kind, reference), atol=1e-7, rtol=0
    )


@pytest.mark.parametrize(("shape", "kind"), EVERY)
def test_argmax_distance_is_its_definition(shape, kind) -> None:
    def pointed(one: np.ndarray) -> tuple[float, float]:
        cells = [(i, j) for i in range(shape[0]) for j in range(shape[1]) if one[i, j] == one.max()]
        return sum(i for i, _ in cells) / len(cells), sum(j for _, j in cells) / len(cells)

    def reference(a: np.ndarray, b: np.ndarray) -> float:
        return math.dist(pointed(a), pointed(b)) / math.dist((0, 0), (shape[0] - 1, shape[1] - 1))

    np.testing.assert_allclose(computed("argmax-distance", shape, kind), one_by_one(shape, kind, reference), atol=1e-12)


@pytest.mark.parametrize("name", METRICS)
def test_single_precision_maps_are_compared_in_double_precision(name: str) -> None:
    teacher, engine = (maps.astype(np.float32) for maps in pairs((7, 7), "plain"))
    found = METRICS[name].function(teacher, engine)
    assert found.dtype == np.float64
    expected = METRICS[name].function(teacher.astype(np.float64), engine.astype(np.float64))
    assert np.array_equal(found, expected)


def test_pixel_auc_is_scipys_mann_whitney_u() -> None:
    rng = np.random.default_rng(5)
    maps = np.floor(rng.gamma(0.7, size=(12, 9, 8)) * 2) + 1
    masks = rng.random((12, 9, 8)) < 0.3
    expected = [
        stats.mannwhitneyu(one[mask], one[~mask]).statistic / (mask.sum() * (~mask).sum())
        for one, mask in zip(maps, masks, strict=True)
    ]
    np.testing.assert_allclose(score_localisation(maps, masks)["pixel-auc"], expected, atol=1e-12)


@pytest.mark.parametrize("confidence", [0.5, 0.8, 0.95, 0.99, 0.9999])
@pytest.mark.parametrize("n", [1, 2, 3, 10, 58, 59, 60, 500, 5000, 100_000])
def test_bounds_are_scipys(n: int, confidence: float) -> None:
    for successes in sorted({0, 1, n // 3, n // 2, round(0.95 * n), n - 1, n}):
        found = clopper_pearson(successes, n, confidence)
        lower = stats.beta.ppf(1 - confidence, successes, n - successes + 1) if successes else 0.0
        upper = stats.beta.ppf(confidence, successes + 1, n - successes) if successes < n else 1.0
        assert found.lower == pytest.approx(lower, abs=1e-9)
        assert found.upper == pytest.approx(upper, abs=1e-9)


@pytest.mark.parametrize(("successes", "n"), [(0, 7), (3, 7), (57, 60), (60, 60), (480, 500)])
def test_one_sided_bounds_are_those_of_scipys_binomial_test(successes: int, n: int) -> None:
    found = clopper_pearson(successes, n, 0.95)
    greater = stats.binomtest(successes, n, alternative="greater").proportion_ci(0.95, method="exact")
    less = stats.binomtest(successes, n, alternative="less").proportion_ci(0.95, method="exact")
    assert found.lower == pytest.approx(greater.low, abs=1e-9)
    assert found.upper == pytest.approx(less.high, abs=1e-9)


@pytest.mark.parametrize("required", [0.3, 0.9, 0.95, 0.99])
@pytest.mark.parametrize("observed", [0.0, 0.2, 0.85, 0.93, 0.96, 0.97, 1.0])
@pytest.mark.parametrize("confidence", [0.8, 0.95, 0.99])
def test_samples_to_decide_is_the_first_sample_that_does(observed: float, required: float, confidence: float) -> None:
    numbers = np.arange(1, 4001)
    successes = observed * numbers
    if observed > required:
        decided = stats.beta.ppf(1 - confidence, successes, numbers - successes + 1) >= required
    else:
        decided = stats.beta.ppf(confidence, successes + 1, numbers - successes) < required
    expected = int(numbers[decided][0]) if decided.any() else None
    found = samples_to_decide(observed, required, confidence)
    if expected is None:
        assert found is None or found > 4000
    else:
        # Where the bound meets the requirement to the last bit, scipy's rounding may fall on the other side.
        assert found == expected


def test_quantiles_are_numpys() -> None:
    values = np.random.default_rng(11).normal(size=41)
    shares = [0.0, 0.01, 0.05, 0.25, 0.5, 0.777, 0.95, 1.0]
    np.testing.assert_allclose(quantiles(values, shares), np.quantile(values, shares), atol=1e-14)
    assert quantiles(values[:1], [0.3]) == (values[0],)
