"""The distillation losses against scipy, torch's own distributions and Hinton's limit of high temperatures."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.special import expit, rel_entr, softmax
from torch.distributions import Bernoulli, Categorical, kl_divergence

from edgekit.compress.distillation.losses import distillation_loss, form_for
from edgekit.compress.options import DISTIL_FORMS
from edgekit.errors import BadInputError
from edgekit.interface.card import TASKS

FORMS = ("softmax", "sigmoid")
TEMPERATURES = (0.5, 1.0, 4.0, 20.0)


def logits(count: int, classes: int, seed: int, scale: float = 3.0) -> torch.Tensor:
    source = torch.Generator().manual_seed(seed)
    return torch.randn(count, classes, generator=source, dtype=torch.float64) * scale


def by_scipy(ours: npt.NDArray[np.float64], theirs: npt.NDArray[np.float64], form: str, T: float) -> float:
    """Written from the definition, sample by sample."""
    if form == "softmax":
        each = [rel_entr(softmax(t / T), softmax(s / T)).sum() for s, t in zip(ours, theirs, strict=True)]
        return float(T**2 * np.sum(each) / len(each))
    yes_t, yes_s = expit(theirs / T), expit(ours / T)
    each = rel_entr(yes_t, yes_s) + rel_entr(expit(-theirs / T), expit(-ours / T))
    return float(T**2 * each.sum() / each.size)


@pytest.mark.parametrize("temperature", TEMPERATURES)
@pytest.mark.parametrize("form", FORMS)
@given(arrays(np.float64, (3, 4), elements=st.floats(-30, 30)), arrays(np.float64, (3, 4), elements=st.floats(-30, 30)))
def test_it_is_the_divergence_that_scipy_says(
    form: str, temperature: float, ours: npt.NDArray[np.float64], theirs: npt.NDArray[np.float64]
) -> None:
    found = float(distillation_loss(torch.from_numpy(ours), torch.from_numpy(theirs), form, temperature))
    expected = by_scipy(ours, theirs, form, temperature)
    assert found == pytest.approx(expected, rel=1e-9, abs=1e-11 * temperature**2)


@pytest.mark.parametrize("temperature", TEMPERATURES)
@pytest.mark.parametrize("form", FORMS)
def test_value_and_gradient_are_those_of_torchs_distributions(form: str, temperature: float) -> None:
    ours, theirs = logits(6, 5, 0).requires_grad_(), logits(6, 5, 1)
    family = Categorical if form == "softmax" else Bernoulli
    parts = kl_divergence(family(logits=theirs / temperature), family(logits=ours / temperature))
    expected = parts.mean() * temperature**2
    found = distillation_loss(ours, theirs, form, temperature)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)
    (wanted,) = torch.autograd.grad(expected, ours)
    (gradient,) = torch.autograd.grad(found, ours)
    torch.testing.assert_close(gradient, wanted, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("form", FORMS)
def test_the_gradient_is_that_of_finite_differences(form: str) -> None:
    ours, theirs = logits(3, 4, 2).requires_grad_(), logits(3, 4, 3)
    assert torch.autograd.gradcheck(lambda x: distillation_loss(x, theirs, form, 3.0), (ours,))


@pytest.mark.parametrize("form", FORMS)
def test_the_gradient_is_the_difference_of_answers_in_closed_form(form: str) -> None:
    """d/ds of T^2 KL is T (p_s - p_t), over the batch for softmax and over batch and classes for sigmoid."""
    ours, theirs, T = logits(6, 5, 4).requires_grad_(), logits(6, 5, 5), 4.0
    (gradient,) = torch.autograd.grad(distillation_loss(ours, theirs, form, T), ours)
    answer = (lambda x: torch.softmax(x, dim=1)) if form == "softmax" else torch.sigmoid
    count = 6 if form == "softmax" else 30
    torch.testing.assert_close(gradient, T * (answer(ours / T) - answer(theirs / T)) / count, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("form", FORMS)
def test_at_high_temperature_it_is_a_squared_distance_of_logits(form: str) -> None:
    """Hinton et al. 2015, section 2.1: T^2 keeps the size of the gradient, whose limit is the difference of logits."""
    ours, theirs = logits(7, 5, 6, scale=1.0), logits(7, 5, 7, scale=1.0)
    difference = ours - theirs
    if form == "softmax":
        centred = difference - difference.mean(dim=1, keepdim=True)
        limit = centred.square().sum(dim=1).mean() / (2 * 5)
    else:
        limit = difference.square().mean() / 8
    far = distillation_loss(ours, theirs, form, 1e3)
    torch.testing.assert_close(far, limit, rtol=1e-2, atol=0)
    assert abs(far - limit) < abs(distillation_loss(ours, theirs, form, 10.0) - limit)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("scale", [0.0, 1e-6, 100.0, 1e4, 1e6])
@pytest.mark.parametrize("form", FORMS)
def test_extreme_logits_have_finite_losses_and_gradients(form: str, scale: float, dtype: torch.dtype) -> None:
    signs = torch.tensor([[1.0, -1.0, 1.0], [-1.0, -1.0, 1.0]], dtype=dtype)
    for theirs in (signs * scale, -signs * scale, torch.zeros_like(signs)):
        ours = (signs * scale).requires_grad_()
        loss = distillation_loss(ours, theirs, form, 4.0)
        (gradient,) = torch.autograd.grad(loss, ours)
        assert torch.isfinite(loss)
        # Rounding of a difference of logarithms, times T^2.
        assert loss >= -64 * torch.finfo(dtype).eps
        assert torch.isfinite(gradient).all()
        # |p_s - p_t| is at most 1 in every class.
        assert gradient.abs().max() <= 4.0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("form", FORMS)
def test_half_precision_is_computed_with_in_single(form: str, dtype: torch.dtype) -> None:
    ours, theirs = logits(6, 5, 8).to(dtype).requires_grad_(), logits(6, 5, 9).to(dtype)
    found = distillation_loss(ours, theirs, form, 4.0)
    assert found.dtype == torch.float32
    assert float(found.detach()) == pytest.approx(
        by_scipy(ours.detach().double().numpy(), theirs.double().numpy(), form, 4.0), rel=1e-5
    )
    (gradient,) = torch.autograd.grad(found, ours)
    assert gradient.dtype == dtype


@pytest.mark.parametrize("form", FORMS)
def test_equal_answers_cost_nothing_and_the_teacher_gets_no_gradient(form: str) -> None:
    ours, theirs = logits(4, 3, 10).requires_grad_(), logits(4, 3, 10).requires_grad_()
    loss = distillation_loss(ours, theirs, form, 4.0)
    loss.backward()
    assert float(loss.detach()) == pytest.approx(0, abs=1e-14)
    assert theirs.grad is None
    assert ours.grad is not None
    assert ours.grad.abs().max() < 1e-14


@pytest.mark.parametrize("form", FORMS)
def test_more_of_the_same_images_cost_the_same(form: str) -> None:
    ours, theirs = logits(4, 3, 11), logits(4, 3, 12)
    once = distillation_loss(ours, theirs, form, 4.0)
    torch.testing.assert_close(distillation_loss(ours.repeat(3, 1), theirs.repeat(3, 1), form, 4.0), once)


def test_softmax_ignores_a_constant_and_sigmoid_does_not() -> None:
    ours, theirs = logits(4, 3, 13), logits(4, 3, 14)
    shift = torch.tensor([[5.0]], dtype=torch.float64)
    softmax_loss = distillation_loss(ours, theirs, "softmax", 2.0)
    torch.testing.assert_close(distillation_loss(ours + shift, theirs, "softmax", 2.0), softmax_loss)
    assert (
        abs(distillation_loss(ours + shift, theirs, "sigmoid", 2.0) - distillation_loss(ours, theirs, "sigmoid", 2.0))
        > 0.1
    )


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("form", DISTIL_FORMS)
def test_the_form_follows_the_task_where_it_is_left_open(form: str, task: str) -> None:
    if (form, task) == ("softmax", "multi-label"):
        with pytest.raises(BadInputError, match="multi-label") as caught:
            form_for(form, task)
        assert caught.value.where == "compress.distil.form"
        return
    expected = {"softmax": "softmax", "multi-label": "sigmoid"}[task] if form == "auto" else form
    assert form_for(form, task) == expected
