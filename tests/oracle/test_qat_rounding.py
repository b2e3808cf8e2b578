"""Rounding against the number formats' own arithmetic; its gradients against torch's learnable fake quantisation."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekit.calibrate.formats import NUMBER_FORMATS, QuantParams, fake_quantise
from edgekit.calibrate.qdq import quantised_weight
from edgekit.calibrate.scale_table import WeightScale
from edgekit.qat.rounding import round_activation, round_bias, round_weight

FORMATS = pytest.mark.parametrize("fmt", NUMBER_FORMATS.values(), ids=lambda fmt: fmt.name)
SCALES = st.floats(2.0**-20, 2.0**4, width=32)


@FORMATS
@settings(max_examples=60, deadline=None)
@given(scale=SCALES, seed=st.integers(0, 10_000), share=st.floats(0, 1))
def test_forward_is_the_number_formats_arithmetic(fmt, scale: float, seed: int, share: float) -> None:
    zero = 0 if fmt.symmetric else int(fmt.qmin + share * (fmt.qmax - fmt.qmin))
    source = np.random.default_rng(seed)
    values = (source.normal(0, 100 * scale, 200)).astype(np.float32)
    # Halves, which round to even, and values far outside.
    values[:50] = (source.integers(-300, 300, 50) + 0.5).astype(np.float32) * np.float32(scale)
    wanted = fake_quantise(values, QuantParams(scale, zero), fmt)
    found = round_activation(torch.from_numpy(values), torch.tensor(scale), zero, fmt.qmin, fmt.qmax)
    np.testing.assert_array_equal(found.numpy(), wanted)


@FORMATS
def test_weights_are_rounded_as_they_are_written(fmt) -> None:
    weight = np.random.default_rng(0).normal(0, 1, (6, 4, 3, 3)).astype(np.float32)
    scales = np.linspace(0.001, 0.03, 6, dtype=np.float32)
    entry = WeightScale(0, tuple(float(scale) for scale in scales))
    wanted = quantised_weight(weight, entry, fmt).astype(np.float32) * scales.reshape(-1, 1, 1, 1)
    found = round_weight(torch.from_numpy(weight), torch.from_numpy(scales), 0, fmt.weight_limit)
    np.testing.assert_array_equal(found.numpy(), wanted)


@FORMATS
@pytest.mark.parametrize("zero_share", [0.0, 0.4])
def test_gradients_are_those_of_lsq(fmt, zero_share: float) -> None:
    zero = 0 if fmt.symmetric else int(fmt.qmin + zero_share * (fmt.qmax - fmt.qmin))
    generator = torch.Generator().manual_seed(3)
    x = (torch.randn(400, generator=generator) * 3).requires_grad_()
    scale = torch.tensor(0.03, requires_grad=True)
    incoming = torch.randn(400, generator=generator)
    (round_activation(x, scale, zero, fmt.qmin, fmt.qmax) * incoming).sum().backward()

    other, size = x.detach().clone().requires_grad_(), torch.tensor([0.03], requires_grad=True)
    # Shifted to integers from 0 on, which is the same function: below 0 torch's truncates where it means to round.
    shifted, highest = torch.tensor([float(zero - fmt.qmin)], requires_grad=True), fmt.qmax - fmt.qmin
    theirs = torch._fake_quantize_learnable_per_tensor_affine(other, size, shifted, 0, highest, 1.0)
    (theirs * incoming).sum().backward()
    assert 0 < int((x.grad == 0).sum()) < 400, "both sides of the range must be tried"
    torch.testing.assert_close(x.grad, other.grad)
    torch.testing.assert_close(scale.grad.reshape(1), size.grad, rtol=1e-4, atol=1e-4)


def test_gradients_of_channels_are_those_of_lsq() -> None:
    generator = torch.Generator().manual_seed(4)
    weight = torch.randn(5, 3, 3, 3, generator=generator).requires_grad_()
    scales = torch.linspace(0.005, 0.03, 5).requires_grad_()
    incoming = torch.randn(5, 3, 3, 3, generator=generator)
    (round_weight(weight, scales, 0, 127) * incoming).sum().backward()
    other, sizes = weight.detach().clone().requires_grad_(), scales.detach().clone().requires_grad_()
    theirs = torch._fake_quantize_learnable_per_channel_affine(
        other, sizes, torch.full((5,), 127.0, requires_grad=True), 0, 0, 254, 1.0
    )
    (theirs * incoming).sum().backward()
    torch.testing.assert_close(weight.grad, other.grad)
    torch.testing.assert_close(scales.grad, sizes.grad, rtol=1e-4, atol=1e-4)


def test_a_gradient_through_rounding_can_be_differentiated_again() -> None:
    """With f = sum(round(x)^3), df/dx = 3 round(x)^2 inside, whose derivative straight through is 6 round(x)."""
    x = torch.tensor([0.31, -0.52, 2.0, -3.0], requires_grad=True)
    rounded = round_activation(x, torch.tensor(0.1, requires_grad=True), 0, -8, 7)
    (gradient,) = torch.autograd.grad((rounded**3).sum(), x, create_graph=True)
    torch.testing.assert_close(gradient, torch.tensor([3 * 0.09, 3 * 0.25, 0.0, 0.0]))
    (second,) = torch.autograd.grad(gradient.sum(), x)
    torch.testing.assert_close(second, torch.tensor([6 * 0.3, 6 * -0.5, 0.0, 0.0]))


@settings(max_examples=60, deadline=None)
@given(scale=SCALES, value=st.floats(-1000, 1000, width=32))
def test_biases_are_rounded_in_float64_and_pass_their_gradient_on(scale: float, value: float) -> None:
    bias = torch.tensor([value], requires_grad=True)
    found = round_bias(bias, torch.tensor([scale]))
    steps = np.clip(np.rint(np.float64(np.float32(value)) / np.float64(np.float32(scale))), -(2**31) + 1, 2**31 - 1)
    assert found.item() == np.float32(steps) * np.float32(scale)
    found.sum().backward()
    assert bias.grad is not None
    assert bias.grad.item() == 1
