"""Normalisation, resizing and the invariants of maps, against their definitions and against torch."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from edgekit.attribution.invariants import check_maps
from edgekit.attribution.normalise import clipped_distribution, power_of_two_scaled, unit_max
from edgekit.attribution.spec import MapSpec
from edgekit.attribution.upsample import upsample_bilinear
from edgekit.errors import DefectError, IntegrityError

SPEC = MapSpec("grad-cam", "layer4", 3, 5)
ANY_MAPS = hnp.arrays(
    np.float64,
    hnp.array_shapes(min_dims=3, max_dims=3, min_side=1, max_side=6),
    elements=st.floats(-1e300, 1e300, allow_subnormal=True),
)


@settings(deadline=None)
@given(ANY_MAPS)
def test_unit_max_divides_by_the_largest_magnitude_and_leaves_zero_alone(maps: np.ndarray) -> None:
    scaled = unit_max(maps)
    for before, after in zip(maps, scaled, strict=True):
        if before.any():
            assert np.abs(after).max() == 1.0
            assert np.array_equal(np.sign(before)[after != 0], np.sign(after)[after != 0])
        else:
            assert not after.any()


def test_unit_max_keeps_the_zero_point_where_minmax_would_not() -> None:
    assert unit_max(np.array([[[2.0, 4.0]]], dtype=np.float32)).tolist() == [[[0.5, 1.0]]]
    assert unit_max(np.array([[[-8.0, 4.0]]])).tolist() == [[[-1.0, 0.5]]]


@settings(deadline=None)
@given(ANY_MAPS)
def test_power_of_two_scaling_is_exact_and_bounded(maps: np.ndarray) -> None:
    for before, after in zip(maps, power_of_two_scaled(maps), strict=True):
        top = np.abs(after).max()
        assert top == 0 or 0.5 <= top < 1
        if top:
            place = np.unravel_index(np.abs(before).argmax(), before.shape)
            shift = math.log2(after[place] / before[place]) if 1e-250 < abs(before[place]) < 1e250 else None
            assert shift is None or shift == int(shift)


@settings(deadline=None)
@given(ANY_MAPS)
def test_a_distribution_sums_to_one_unless_nothing_is_positive(maps: np.ndarray) -> None:
    for before, after in zip(maps, clipped_distribution(maps), strict=True):
        assert (after >= 0).all()
        assert after.sum() == pytest.approx(1.0 if (before > 0).any() else 0.0, abs=1e-12)
        assert not after[before <= 0].any()


@pytest.mark.parametrize("source", [(1, 1), (1, 4), (2, 2), (3, 3), (7, 7), (4, 9), (8, 5)])
@pytest.mark.parametrize("target", [(1, 1), (2, 3), (7, 7), (9, 16), (32, 30), (33, 64)])
def test_upsampling_equals_torch(source: tuple[int, int], target: tuple[int, int]) -> None:
    torch = pytest.importorskip("torch", reason="the oracle is torch")
    maps = np.random.default_rng(7).normal(size=(3, *source))
    expected = torch.nn.functional.interpolate(
        torch.from_numpy(maps)[:, None], size=target, mode="bilinear", align_corners=False
    )[:, 0].numpy()
    np.testing.assert_allclose(upsample_bilinear(maps, *target), expected, rtol=0, atol=1e-12)


def slow_bilinear(one: np.ndarray, height: int, width: int) -> np.ndarray:
    result = np.empty((height, width))
    for i in range(height):
        for j in range(width):
            y = min(max((i + 0.5) * one.shape[0] / height - 0.5, 0), one.shape[0] - 1)
            x = min(max((j + 0.5) * one.shape[1] / width - 0.5, 0), one.shape[1] - 1)
            top, left = int(y), int(x)
            bottom, right = min(top + 1, one.shape[0] - 1), min(left + 1, one.shape[1] - 1)
            fy, fx = y - top, x - left
            result[i, j] = (
                one[top, left] * (1 - fy) * (1 - fx)
                + one[top, right] * (1 - fy) * fx
                + one[bottom, left] * fy * (1 - fx)
                + one[bottom, right] * fy * fx
            )
    return result


@settings(deadline=None)
@given(ANY_MAPS.map(lambda maps: maps / 1e300), st.integers(1, 12), st.integers(1, 12))
def test_upsampling_equals_the_definition_in_slow_loops(maps: np.ndarray, height: int, width: int) -> None:
    expected = np.stack([slow_bilinear(one, height, width) for one in maps])
    np.testing.assert_allclose(upsample_bilinear(maps, height, width), expected, rtol=0, atol=1e-14)


@settings(deadline=None)
@given(st.floats(-1e30, 1e30), st.integers(1, 7), st.integers(1, 40))
def test_a_flat_map_stays_exactly_flat(value: float, side: int, target: int) -> None:
    assert (upsample_bilinear(np.full((1, side, side), value), target, target) == value).all()


@pytest.mark.parametrize("shape", [(3, 3), (2, 0, 3), (1, 2, 3, 4)])
def test_upsampling_refuses_what_is_no_stack_of_maps(shape: tuple[int, ...]) -> None:
    with pytest.raises(DefectError, match="resized"):
        upsample_bilinear(np.zeros(shape), 4, 4)


def test_sound_maps_pass_and_so_do_values_that_are_not_finite() -> None:
    maps = np.zeros((2, 3, 5), dtype=np.float32)
    check_maps(maps, SPEC)
    maps[0, 0, 0], maps[1, 2, 2] = np.nan, np.inf
    check_maps(maps, SPEC)
    check_maps(maps[:0], SPEC)


@pytest.mark.parametrize(
    "maps",
    [
        np.zeros((2, 3, 5)),
        np.zeros((2, 3, 5), dtype=np.float16),
        np.zeros((2, 5, 3), dtype=np.float32),
        np.zeros((3, 5), dtype=np.float32),
        np.zeros((2, 1, 3, 5), dtype=np.float32),
    ],
)
def test_other_shapes_and_dtypes_are_not_that_map(maps: np.ndarray) -> None:
    with pytest.raises(IntegrityError, match="not a stack") as caught:
        check_maps(maps, SPEC, where="model.onnx")
    assert caught.value.where == "model.onnx"
    assert str(maps.dtype) in str(caught.value.found)


def test_negative_values_from_a_relu_are_refused_and_from_a_signed_method_are_not() -> None:
    maps = np.zeros((2, 3, 5), dtype=np.float32)
    maps[1, 0, 0] = -1e-6
    with pytest.raises(IntegrityError, match="negative") as caught:
        check_maps(maps, SPEC)
    assert "1 of 2" in str(caught.value.found)
    check_maps(maps, MapSpec("signed", "layer4", 3, 5, nonnegative=False))
