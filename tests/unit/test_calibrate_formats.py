"""Eight-bit arithmetic against exact fractions."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from edgekit.calibrate.formats import (
    NUMBER_FORMATS,
    SMALLEST_SCALE,
    NumberFormat,
    QuantParams,
    Range,
    activation_params,
    bias_scales,
    dequantise,
    fake_quantise,
    number_format,
    quantise,
    weight_scales,
)
from edgekit.errors import BadInputError

FORMATS = pytest.mark.parametrize("fmt", NUMBER_FORMATS.values(), ids=lambda fmt: fmt.name)
MAGNITUDES = st.floats(1e-6, 1e6)


def half_even(value: Fraction) -> int:
    whole, rest = divmod(value, 1)
    return int(whole) + int(rest > Fraction(1, 2) or (rest == Fraction(1, 2) and whole % 2 == 1))


def exact_integer(value: float, params: QuantParams, fmt: NumberFormat) -> int:
    steps = half_even(Fraction(value) / Fraction(params.scale))
    return max(fmt.qmin, min(fmt.qmax, steps + params.zero_point))


def as_array(value: float) -> np.ndarray:
    return np.array([value], dtype=np.float32)


@FORMATS
@given(low=MAGNITUDES, high=MAGNITUDES, value=st.floats(-2, 2), one_sided=st.booleans())
def test_quantising_is_division_and_rounding(
    fmt: NumberFormat, low: float, high: float, value: float, one_sided: bool
) -> None:
    limits = Range(0.0 if one_sided else -low, high)
    params = activation_params(limits, fmt)
    x = float(np.float32(value * limits.amax))
    quotient = Fraction(x) / Fraction(params.scale)
    # A float32 quotient may fall on a tie that the exact one misses by less than its own rounding.
    assume(abs(quotient % 1 - Fraction(1, 2)) > abs(quotient) * Fraction(1, 2**22))
    integer = int(quantise(as_array(x), params, fmt)[0])
    assert integer == exact_integer(x, params, fmt)
    back = float(dequantise(np.array([integer], dtype=fmt.dtype), params)[0])
    assert back == float(np.float32(float((integer - params.zero_point) * Fraction(params.scale))))


@FORMATS
@given(steps=st.integers(-600, 600), exponent=st.integers(-20, 20))
def test_ties_go_to_the_even_step(fmt: NumberFormat, steps: int, exponent: int) -> None:
    params = QuantParams(2.0**exponent, 0 if fmt.symmetric else fmt.qmin + 100)
    x = (steps + 0.5) * 2.0**exponent
    assert int(quantise(as_array(x), params, fmt)[0]) == exact_integer(x, params, fmt)


@FORMATS
@given(low=MAGNITUDES, high=MAGNITUDES)
def test_zero_is_exact_and_integers_come_back(fmt: NumberFormat, low: float, high: float) -> None:
    params = activation_params(Range(-low, high), fmt)
    assert fmt.qmin <= params.zero_point <= fmt.qmax
    assert params.scale == float(np.float32(params.scale)) > 0
    assert fake_quantise(as_array(0.0), params, fmt)[0] == 0.0
    integers = np.arange(fmt.qmin, fmt.qmax + 1).astype(fmt.dtype)
    np.testing.assert_array_equal(quantise(dequantise(integers, params), params, fmt), integers)


@FORMATS
@given(low=MAGNITUDES, high=MAGNITUDES, share=st.floats(0, 1))
def test_within_the_range_the_error_is_half_a_step(fmt: NumberFormat, low: float, high: float, share: float) -> None:
    params = activation_params(Range(-low, high), fmt)
    x = np.float32(-low + share * (low + high))
    assume(-low <= x <= high)
    assert abs(float(fake_quantise(as_array(x), params, fmt)[0]) - float(x)) <= 0.5001 * params.scale


@FORMATS
def test_the_whole_grid_is_used(fmt: NumberFormat) -> None:
    params = activation_params(Range(-1.0, 3.0), fmt)
    ends = quantise(np.array([-1.0, 3.0], dtype=np.float32), params, fmt)
    if fmt.symmetric:
        assert (params.zero_point, params.scale) == (0, float(np.float32(3 / 127)))
        assert ends.tolist() == [-42, 127]
    else:
        assert ends.tolist() == [fmt.qmin, fmt.qmax]


@given(top=st.floats(2.0**-6, 2.0**6, width=32))
@example(top=6.0)
@example(top=7.996654510498047)
def test_the_grid_never_ends_above_its_range(top: float) -> None:
    # A runtime drops a Clip behind a convolution only if the largest integer is not above its bound.
    end = np.float32(255) * np.float32(activation_params(Range(0.0, top), NUMBER_FORMATS["x86-u8s8"]).scale)
    assert top * (1 - 2.0**-22) <= end <= top


def test_the_grid_reaches_six() -> None:
    # The mask of a ReLU6's gradient asks whether a value has reached it.
    assert np.float32(255) * np.float32(activation_params(Range(0.0, 6.0), NUMBER_FORMATS["x86-u8s8"]).scale) == 6


@FORMATS
@pytest.mark.parametrize("limits", [Range(0, 0), Range(0, 1e-40), Range(-1e-38, 0), Range(0, 3e38)])
def test_degenerate_ranges_have_positive_normal_scales(fmt: NumberFormat, limits: Range) -> None:
    params = activation_params(limits, fmt)
    assert np.isfinite(params.scale)
    assert params.scale >= SMALLEST_SCALE
    assert fake_quantise(as_array(0.0), params, fmt)[0] == 0.0


def test_a_range_contains_zero_and_is_finite() -> None:
    assert Range(0.5, 2.0) == Range(0.0, 2.0)
    assert Range(-2.0, -0.5) == Range(-2.0, 0.0)
    with pytest.raises(BadInputError):
        Range(0.0, float("inf"))
    with pytest.raises(BadInputError):
        Range(float("nan"), 1.0)


def test_weight_scales_are_the_largest_magnitude_over_the_levels() -> None:
    fmt = NUMBER_FORMATS["x86-u8s8"]
    np.testing.assert_array_equal(
        weight_scales(np.array([127.0, 1.0, 0.0]), fmt), np.array([1.0, 1 / 127, 1.0], dtype=np.float32)
    )
    assert weight_scales(np.zeros(3), fmt).min() > 0


@given(amax=st.floats(0, 10), bias=st.floats(-1e6, 1e6), input_scale=st.floats(SMALLEST_SCALE, 1e3), dead=st.booleans())
def test_every_bias_fits_into_32_bits(amax: float, bias: float, input_scale: float, dead: bool) -> None:
    fmt = NUMBER_FORMATS["x86-u8s8"]
    values = np.array([bias], dtype=np.float32)
    plain = weight_scales(np.array([0.0 if dead else amax]), fmt)
    widened = bias_scales(plain, values, input_scale)
    assert widened[0] >= plain[0]
    assert abs(float(values[0]) / (float(widened[0]) * input_scale)) < 2**31 - 1


def test_an_unknown_format_lists_the_known_ones() -> None:
    with pytest.raises(BadInputError) as raised:
        number_format("fp4")
    assert all(name in str(raised.value.expected) for name in NUMBER_FORMATS)
