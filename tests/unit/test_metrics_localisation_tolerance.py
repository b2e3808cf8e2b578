"""Pointing with tolerance, and pixels that are not scored, against slow definitions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekit.errors import DefectError
from edgekit.metrics.localisation import LOCALISATION, POINTING_TOLERANCE, grown, score_localisation


def slowly_grown(mask: np.ndarray, tolerance: float) -> np.ndarray:
    """Pixel by pixel: is any of the mask near enough?"""
    height, width = mask.shape
    result = np.zeros_like(mask)
    for row in range(height):
        for column in range(width):
            result[row, column] = any(
                ((row - y) / height) ** 2 + ((column - x) / width) ** 2 <= tolerance**2 for y, x in np.argwhere(mask)
            )
    return result


sizes = st.tuples(st.integers(1, 14), st.integers(1, 14))


@given(sizes, st.floats(0, 0.6), st.integers(0, 2**32 - 1))
def test_masks_grow_by_what_is_near(size, tolerance, seed):
    masks = np.random.default_rng(seed).random((2, *size)) < 0.1
    np.testing.assert_array_equal(grown(masks, tolerance), [slowly_grown(mask, tolerance) for mask in masks])


def test_the_tolerance_is_fifteen_pixels_of_a_photograph():
    mask = np.zeros((1, 500, 500), dtype=bool)
    mask[0, 250, 250] = True
    large = grown(mask)
    assert POINTING_TOLERANCE * 500 == 15
    assert large[0, 250, 265]
    assert not large[0, 250, 266]
    assert not large[0, 261, 261]
    assert large[0, 260, 261]
    assert not grown(np.zeros((1, 9, 9), dtype=bool)).any()


def test_a_near_miss_counts_with_tolerance_only():
    maps, masks = np.zeros((1, 50, 50)), np.zeros((1, 50, 50), dtype=bool)
    maps[0, 20, 20], masks[0, 20, 21:30] = 1, True
    assert score_localisation(maps, masks)["pointing"][0] == 0
    assert score_localisation(maps, grown(masks))["pointing"][0] == 1


@given(sizes, st.integers(0, 2**32 - 1))
def test_ignored_pixels_count_as_if_the_image_did_not_have_them(size, seed):
    rng = np.random.default_rng(seed)
    maps = rng.integers(0, 4, (3, *size)).astype(float)
    masks, ignored = rng.random((3, *size)) < 0.4, rng.random((3, *size)) < 0.3
    ignored[2] = False
    found = score_localisation(maps, masks, ignored)
    for index in range(3):
        kept = ~ignored[index]
        mask = masks[index][kept][None]
        for name, function in LOCALISATION.items():
            expected = function(maps[index][kept][None], mask)[0] if mask.any() else np.nan
            np.testing.assert_array_equal(found[name][index], expected)


def test_nothing_ignored_changes_nothing():
    rng = np.random.default_rng(0)
    maps, masks = rng.random((4, 3, 3)), rng.random((4, 9, 9)) < 0.5
    plain = score_localisation(maps, masks)
    with_none = score_localisation(maps, masks, np.zeros_like(masks))
    for name, values in plain.items():
        np.testing.assert_array_equal(values, with_none[name])


def test_ignored_pixels_of_another_size_are_a_defect():
    with pytest.raises(DefectError, match="ignored"):
        score_localisation(np.ones((1, 2, 2)), np.ones((1, 4, 4), dtype=bool), np.zeros((1, 4, 5), dtype=bool))
