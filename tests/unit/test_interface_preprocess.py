"""Pixels to network input, against the formula applied pixel by pixel."""

from __future__ import annotations

import numpy as np
import pytest

from edgekit.errors import DefectError
from edgekit.interface.card import InputSpec
from edgekit.interface.preprocess import preprocess


@pytest.fixture
def pixels() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, size=(2, 3, 5, 3), dtype=np.uint8)


@pytest.mark.parametrize("order", ["RGB", "BGR"])
@pytest.mark.parametrize("divisor", [255.0, 1.0, 127.5])
def test_every_value_follows_the_formula(pixels: np.ndarray, order: str, divisor: float) -> None:
    mean, std = (0.1, 0.2, 0.3), (0.5, 1.0, 2.0)
    found = preprocess(pixels, InputSpec(3, 5, order, divisor, mean, std))
    assert found.dtype == np.float32
    assert found.shape == (2, 3, 3, 5)
    for sample, channel, row, column in np.ndindex(found.shape):
        # Mean and std are given in the network's order, the pixels come as red, green, blue.
        source = channel if order == "RGB" else 2 - channel
        value = (float(pixels[sample, row, column, source]) / divisor - mean[channel]) / std[channel]
        assert found[sample, channel, row, column] == pytest.approx(value, rel=1e-5, abs=1e-6)


def test_the_ends_of_the_usual_ranges() -> None:
    ends = np.array([0, 255], dtype=np.uint8).reshape(2, 1, 1, 1).repeat(3, axis=3)
    unit = preprocess(ends, InputSpec(1, 1))
    assert unit.ravel().tolist() == [0.0] * 3 + [1.0] * 3
    signed = preprocess(ends, InputSpec(1, 1, mean=(0.5,) * 3, std=(0.5,) * 3))
    assert signed.ravel().tolist() == [-1.0] * 3 + [1.0] * 3


def test_a_sample_does_not_depend_on_the_batch_it_is_in(pixels: np.ndarray) -> None:
    spec = InputSpec(3, 5, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    together = preprocess(pixels, spec)
    apart = np.concatenate([preprocess(pixels[:1], spec), preprocess(pixels[1:], spec)])
    assert together.tobytes() == apart.tobytes()
    assert together.flags.c_contiguous


def test_an_empty_batch_keeps_its_shape() -> None:
    assert preprocess(np.zeros((0, 3, 5, 3), dtype=np.uint8), InputSpec(3, 5)).shape == (0, 3, 3, 5)


def test_the_pixels_stay_as_they_are(pixels: np.ndarray) -> None:
    before = pixels.copy()
    preprocess(pixels, InputSpec(3, 5, "BGR", mean=(1, 2, 3)))
    assert (pixels == before).all()


@pytest.mark.parametrize(
    "wrong",
    [
        np.zeros((2, 3, 5, 3), dtype=np.float32),
        np.zeros((2, 5, 3, 3), dtype=np.uint8),
        np.zeros((2, 3, 3, 5), dtype=np.uint8),
        np.zeros((3, 5, 3), dtype=np.uint8),
        np.zeros((2, 3, 5, 4), dtype=np.uint8),
        np.zeros((2, 3, 5, 1), dtype=np.uint8),
    ],
    ids=lambda array: f"{array.dtype} {array.shape}",
)
def test_other_forms_are_a_defect_of_the_caller(wrong: np.ndarray) -> None:
    with pytest.raises(DefectError, match="unexpected form"):
        preprocess(wrong, InputSpec(3, 5))
