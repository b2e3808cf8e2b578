"""Half precision in the forward passes: that it is used, that the map stays float32, and that gradients survive."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from training_runs import Net, Recorder, drawn_images, plan, weights_of

from edgekit.compress.training.mixed_precision import half_forward, half_type, in_float32_at
from edgekit.compress.training.optimiser import Optimiser
from edgekit.compress.training.steps import Loss
from edgekit.compress.training.trainer import train
from edgekit.errors import BadInputError
from edgekit.teacher.tap import Tap, forward_with_taps

CPU, GPU = torch.device("cpu"), torch.device("cuda")


def gradients(half: torch.dtype | None, tap: str, *, batch_norm: bool) -> tuple[dict[str, torch.Tensor], float]:
    student, teacher = Net(seed=1).train(), Net(seed=2).eval().requires_grad_(False)
    if not batch_norm:
        student.eval()
    x = torch.randn(12, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    loss = Loss(teacher, plan("swa", tap=tap), torch.Generator(), half)
    value, step = loss(student, x, torch.arange(12) % 3, "here")
    assert value.dtype == torch.float32
    value.backward()  # type: ignore[no-untyped-call]
    return {
        name: parameter.grad for name, parameter in student.named_parameters() if parameter.grad is not None
    }, step.term


@pytest.mark.parametrize(("half", "close"), [(torch.bfloat16, 0.9), (torch.float16, 0.99)])
@pytest.mark.parametrize(("tap", "batch_norm"), [("features", True), ("features", False), ("features.3", False)])
def test_second_derivatives_through_autocast_are_those_of_float32(
    tap: str, batch_norm: bool, half: torch.dtype, close: float
) -> None:
    """Closer with the more digits. Float16 is for GPUs, but a CPU can compute a loss in it.

    Not for a tap before batch normalisations in training mode: there the gradient of the whole batch hangs on a map
    that is nearly zero, and a relative error of 1e-4 in float32 moves it as far as half precision does.
    """
    exact, term = gradients(None, tap, batch_norm=batch_norm)
    found, half_term = gradients(half, tap, batch_norm=batch_norm)
    assert half_term == pytest.approx(term, rel=0.05)
    assert half_term != term
    assert found.keys() == exact.keys()
    for name, gradient in exact.items():
        assert found[name].dtype == torch.float32
        cosine = nn.functional.cosine_similarity(found[name].flatten(), gradient.flatten(), dim=0)
        assert cosine > close, (name, float(cosine))


def test_maps_are_made_of_float32_though_the_network_runs_in_half() -> None:
    """A map of float16 activations around 1e-4 would have a norm of zero: its squares are below the smallest number."""
    model, taps = Net(seed=1).eval(), (Tap("features"),)
    x = torch.rand(2, 3, 16, 16)
    with half_forward(torch.bfloat16, CPU):
        assert forward_with_taps(model, taps, x).activation.dtype == torch.bfloat16
    with in_float32_at(model, taps, torch.bfloat16), half_forward(torch.bfloat16, CPU):
        seen = forward_with_taps(model, taps, x)
    assert (seen.activation.dtype, seen.logits.dtype) == (torch.float32, torch.bfloat16)
    (gradient,) = torch.autograd.grad(seen.logits.float().sum(), seen.activation, create_graph=True)
    assert gradient.dtype == torch.float32
    assert not model.features._forward_hooks
    small = torch.full((1, 4, 4), 1e-4)
    assert small.half().square().sum() == 0 < small.square().sum()


def test_a_run_in_bfloat16_repeats_itself_and_stays_near_float32() -> None:
    def run(precision: str) -> tuple[bytes, float]:
        student = Net(seed=1)
        history = train(student, Net(seed=2).eval(), drawn_images(48, 0), plan(epochs=2, mixed_precision=precision))
        assert all(parameter.dtype == torch.float32 for parameter in student.parameters())
        return weights_of(student), history[-1].loss

    half, again, exact, automatic = run("bfloat16"), run("bfloat16"), run("off"), run("auto")
    assert half == again
    assert automatic == exact != half
    assert half[1] == pytest.approx(exact[1], rel=0.02)


def test_float16_on_a_cpu_is_refused_before_training() -> None:
    observer, student = Recorder(), Net(seed=1)
    before = weights_of(student)
    with pytest.raises(BadInputError, match="float16 needs a GPU") as caught:
        train(student, Net(seed=2), drawn_images(20, 0), plan(mixed_precision="float16"), observer)
    assert caught.value.where == "compress.finetune.mixed_precision"
    assert observer.steps == []
    assert weights_of(student) == before


def test_automatic_means_float16_on_a_gpu_alone() -> None:
    assert half_type("auto", GPU) == half_type("float16", GPU) == torch.float16
    assert half_type("auto", CPU) is half_type("off", CPU) is half_type("off", GPU) is None
    assert half_type("bfloat16", CPU) == torch.bfloat16


def stepped(scaler: torch.amp.GradScaler, factor: float = 1.0) -> Net:
    """One clipped step of the optimiser as it is with float16, whose scaler runs on a CPU as well."""
    model = Net(seed=1)
    optimiser = Optimiser(model, plan(clip_norm=0.01, learning_rate=0.1), scaler)
    loss = model(torch.linspace(-1, 1, 2 * 3 * 16 * 16).reshape(2, 3, 16, 16)).square().sum()
    optimiser.step(loss * factor, 0.1, "step 1")
    return model


def test_scaled_gradients_are_unscaled_before_they_are_clipped_and_used() -> None:
    """The scale is a power of two, so nothing is rounded: the same bytes."""
    plain = stepped(torch.amp.GradScaler("cpu", enabled=False))
    scaled = stepped(torch.amp.GradScaler("cpu", init_scale=2.0**12))
    assert weights_of(plain) == weights_of(scaled) != weights_of(Net(seed=1))


def test_a_step_whose_gradients_overflow_is_left_out_and_the_scale_halved() -> None:
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**100)
    expected = copy.deepcopy(Net(seed=1)).state_dict()
    found = dict(stepped(scaler, factor=1e30).named_parameters())
    assert all(torch.equal(value, expected[name]) for name, value in found.items())
    assert scaler.get_scale() == 2.0**99


def test_gradients_that_overflow_at_any_scale_are_named() -> None:
    with pytest.raises(BadInputError, match="diverged") as caught:
        stepped(torch.amp.GradScaler("cpu", init_scale=1.0), factor=3e38)
    assert caught.value.where == "step 1"
    assert "any scale" in (caught.value.found or "")
