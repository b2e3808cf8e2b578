"""The matching losses against their definition: by hand, by a slow loop in float64, by the paper's formula."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from edgekit.compress.matching.distance import REFERENCE_CELLS, map_distances
from edgekit.compress.matching.protocol import MatchingTerm
from edgekit.compress.matching.registry import MATCHING
from edgekit.compress.matching.sensitivity import sensitivity, sensitivity_map
from edgekit.compress.options import MATCHING_LOSSES, MatchingOptions
from edgekit.errors import BadInputError
from edgekit.teacher.tap import Tapped, forward_with_tap

DTYPE = torch.float64


class Toy(nn.Module):
    """A body, a tap, and a head that is not linear in the tapped activation."""

    def __init__(self, width: int, seed: int, size: int = 4) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.body = nn.Conv2d(2, width, 3, padding=1)
        self.tap = nn.Softplus()
        self.hidden, self.fc = nn.Linear(width * size * size, 6), nn.Linear(6, 3)
        for parameter in self.parameters():
            parameter.data = torch.randn(parameter.shape, generator=generator, dtype=DTYPE) * 0.5

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(torch.tanh(self.hidden(self.tap(self.body(x)).flatten(1))))


def images(count: int = 4, size: int = 4, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, 2, size, size, generator=torch.Generator().manual_seed(seed), dtype=DTYPE)


def generator(seed: int = 5) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def term_of(name: str, teacher: nn.Module, student: nn.Module, x: torch.Tensor, rate: float = 0.3) -> MatchingTerm:
    loss = MATCHING.load(name)(MatchingOptions(loss=name, drop_rate=rate))
    return loss(forward_with_tap(teacher, "tap", x), forward_with_tap(student, "tap", x), generator())


def head(model: Toy, activation: torch.Tensor) -> torch.Tensor:
    return model.fc(torch.tanh(model.hidden(activation.flatten(1))))


def numeric_gradient(model: Toy, activation: torch.Tensor, chosen: int) -> torch.Tensor:
    """d logit / d A by central differences, one cell after the other: [C, h, w]."""
    result = torch.zeros_like(activation)
    for index in range(activation.numel()):
        step = torch.zeros(activation.numel(), dtype=DTYPE)
        step[index] = 1e-5
        above = head(model, (activation + step.reshape(activation.shape))[None])[0, chosen]
        below = head(model, (activation - step.reshape(activation.shape))[None])[0, chosen]
        result.view(-1)[index] = (above - below) / 2e-5
    return result


def slow_map(name: str, model: Toy, x: torch.Tensor, chosen: int, dropped: set[int]) -> list[float]:
    """One sample's flattened map, written down from the definition with loops over channels and cells."""
    activation = model.tap(model.body(x[None]))[0]
    channels, height, width = activation.shape
    gradient = numeric_gradient(model, activation, chosen)
    cells = []
    for row in range(height):
        for column in range(width):
            value = 0.0
            for channel in range(channels):
                a = 0.0 if channel in dropped else float(activation[channel, row, column])
                if name == "ewa":
                    value += a * a / channels
                else:
                    value += float(gradient[channel].sum()) * a
            cells.append(value if name == "ewa" else max(value, 0.0))
    return cells


def slow_term(name: str, teacher: Toy, student: Toy, x: torch.Tensor, dropped: set[int]) -> float:
    total = 0.0
    for image in x:
        chosen = int(teacher(image[None]).argmax())
        maps = [slow_map(name, teacher, image, chosen, dropped), slow_map(name, student, image, chosen, set())]
        norms = [math.sqrt(sum(value**2 for value in cells)) for cells in maps]
        if norms[0] > 0:
            units = [[value / (norm or 1) for value in cells] for cells, norm in zip(maps, norms, strict=True)]
            total += sum((a - b) ** 2 for a, b in zip(*units, strict=True)) / 49
    return total / len(x)


def papers_term(teacher_map: torch.Tensor, student_map: torch.Tensor) -> torch.Tensor:
    """As stated in the paper's code: rows normalised, then the mean square over batch and cells."""
    theirs = nn.functional.normalize(teacher_map.flatten(1), dim=1)
    ours = nn.functional.normalize(student_map.flatten(1), dim=1)
    return (theirs - ours).pow(2).mean()


def test_registry_and_options_name_the_same_losses() -> None:
    assert set(MATCHING.names()) == set(MATCHING_LOSSES)


@pytest.mark.parametrize("name", ["ewa", "swa", "sswa"])
def test_term_equals_the_definition_written_as_loops(name: str) -> None:
    teacher, student, x = Toy(5, seed=0).requires_grad_(False), Toy(3, seed=1).requires_grad_(False), images()
    drawn = set(torch.randperm(5, generator=generator())[: int(5 * 0.4)].tolist()) if name == "sswa" else set()
    found = term_of(name, teacher.requires_grad_(True), student.requires_grad_(True), x, rate=0.4)
    with torch.no_grad():
        expected = slow_term(name, teacher, student, x, drawn)
    assert expected > 1e-3
    assert float(found.value.detach()) == pytest.approx(expected, rel=1e-6)
    assert found.teacher_zero < len(x)


def test_tiny_network_by_hand() -> None:
    """Two channels of 1 x 2 cells, linear heads: alpha_i is the sum of the head's weights of channel i.

    Teacher: A = [[1, 2], [3, 1]], logit 0 = 1*1 + 1*2 + 2*3 + 0*1 = 9, logit 1 = 0, so class 0.
        alpha = (1 + 1, 2 + 0) = (2, 2); map = relu(2*[1, 2] + 2*[3, 1]) = [8, 6], normalised [0.8, 0.6].
    Student: one channel A = [3, 4] and weights (1, 0) for class 0, so alpha = 1, map [3, 4], normalised [0.6, 0.8].
    Distance: (0.2^2 + 0.2^2) / 49 = 0.08 / 49, and 2 (1 - 0.96) = 0.08. Its EWA map is [9, 16]; the teacher's
        [(1 + 9) / 2, (4 + 1) / 2] = [5, 2.5].
    """

    def tapped(activation: list[list[float]], weights: list[list[list[float]]]) -> Tapped:
        a = torch.tensor(activation, dtype=DTYPE)[None, :, None, :].requires_grad_(True)
        logits = torch.stack([(a * torch.tensor(w, dtype=DTYPE)[None, :, None, :]).sum() for w in weights])[None]
        return Tapped(logits, (a,))

    teacher = tapped([[1, 2], [3, 1]], [[[1, 1], [2, 0]], [[0, 0], [0, 0]]])
    student = tapped([[3, 4]], [[[1, 0]], [[5, 5]]])
    swa = MATCHING.load("swa")(MatchingOptions())(teacher, student, generator())
    assert swa.value.item() == pytest.approx(0.08 / 49, rel=1e-12)
    ewa = MATCHING.load("ewa")(MatchingOptions(loss="ewa"))(teacher, student, generator())
    cosine = (5 * 9 + 2.5 * 16) / math.sqrt((25 + 6.25) * (81 + 256))
    assert ewa.value.item() == pytest.approx(2 * (1 - cosine) / 49, rel=1e-12)
    # d term / d A_student: the term is 2 (1 - cos) / 49 and, with w fixed, d cos / d A = (u - cos v) / |A|.
    (gradient,) = torch.autograd.grad(swa.value, student.activation)
    u, v = torch.tensor([0.8, 0.6], dtype=DTYPE), torch.tensor([0.6, 0.8], dtype=DTYPE)
    torch.testing.assert_close(gradient.flatten(), -2 / 49 * (u - 0.96 * v) / 5)


@pytest.mark.parametrize("name", ["ewa", "swa", "sswa"])
def test_at_seven_by_seven_beta_is_the_papers(name: str) -> None:
    teacher, student, x = Toy(6, 0, size=7), Toy(3, 1, size=7), images(size=7)
    term = term_of(name, teacher, student, x, rate=0.34)
    assert (term.teacher_zero, term.student_zero) == (0, 0)
    found = 100 * term.value
    dropped = torch.randperm(6, generator=generator())[:2]
    seen = [forward_with_tap(model, "tap", x) for model in (teacher, student)]
    if name == "ewa":
        maps = [tapped.activation.square().mean(1) for tapped in seen]
    else:
        chosen = seen[0].logits.argmax(1)
        gradients = [
            torch.autograd.grad(tapped.logits[range(len(x)), chosen].sum(), tapped.activation)[0] for tapped in seen
        ]
        shown = [tapped.activation.detach().clone() for tapped in seen]
        if name == "sswa":
            shown[0][:, dropped] = 0
        maps = [
            torch.relu((gradient.sum((2, 3), keepdim=True) * a).sum(1))
            for gradient, a in zip(gradients, shown, strict=True)
        ]
    expected = 100 * papers_term(*[map_.detach() for map_ in maps])
    torch.testing.assert_close(found.detach(), expected, rtol=1e-10, atol=0)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    count=st.integers(1, 4),
    height=st.integers(1, 9),
    width=st.integers(1, 9),
    scale=st.floats(1e-3, 1e3),
)
def test_term_is_a_cosine_loss_whatever_size_and_scale(
    seed: int, count: int, height: int, width: int, scale: float
) -> None:
    source = torch.Generator().manual_seed(seed)
    theirs, ours = torch.rand(2, count, height, width, generator=source, dtype=DTYPE) + 1e-3
    cosine = nn.functional.cosine_similarity(theirs.flatten(1), ours.flatten(1), dim=1)
    found = map_distances(theirs, ours * scale).each.mean()
    torch.testing.assert_close(found, (2 * (1 - cosine) / REFERENCE_CELLS).mean(), rtol=1e-9, atol=1e-12)
    # Every cell four times: the same picture at twice the resolution costs the same, so beta needs no rescaling.
    finer = [maps.repeat_interleave(2, 1).repeat_interleave(2, 2) for maps in (theirs, ours)]
    torch.testing.assert_close(map_distances(*finer).each.mean(), found, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", ["ewa", "swa", "sswa"])
def test_gradient_of_the_term_equals_finite_differences_of_every_student_weight(name: str) -> None:
    teacher, x = Toy(4, seed=0, size=3), images(3, size=3)

    def term(*values: torch.Tensor) -> torch.Tensor:
        student = Toy(2, seed=1, size=3)
        names = [found for found, _ in student.named_parameters()]
        seen: list[torch.Tensor] = []

        def keep(_module: nn.Module, _inputs: object, output: torch.Tensor) -> None:
            seen.append(output)

        student.tap.register_forward_hook(keep)
        logits = torch.func.functional_call(student, dict(zip(names, values, strict=True)), (x,))
        loss = MATCHING.load(name)(MatchingOptions(loss=name))
        return loss(forward_with_tap(teacher, "tap", x), Tapped(logits, (seen[-1],)), generator()).value

    weights = tuple(
        parameter.detach().clone().requires_grad_(True) for parameter in Toy(2, seed=1, size=3).parameters()
    )
    assert torch.autograd.gradcheck(term, weights)


def test_second_derivative_of_the_sensitivity_map_is_right() -> None:
    activation = images(2)[:, :, :3, :3].contiguous().requires_grad_(True)
    weights = torch.randn(3, 18, generator=generator(), dtype=DTYPE, requires_grad=True)

    def own_map(a: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        tapped = Tapped(torch.tanh(a.flatten(1) @ w.T) ** 2, (a,))
        chosen = torch.tensor([0, 2])
        return sensitivity_map(sensitivity(tapped, chosen, differentiable=True) + 3, a**2)

    assert torch.autograd.gradcheck(own_map, (activation, weights))
    assert torch.autograd.gradgradcheck(own_map, (activation, weights))


def test_students_weights_of_the_map_carry_gradient() -> None:
    """With the sensitivities held fixed the gradient would be another one: the double backward matters."""
    teacher, student, x = Toy(4, 0), Toy(4, 1), images()
    found = torch.autograd.grad(term_of("swa", teacher, student, x).value, list(student.fc.parameters())[:1])[0]
    assert float(found.abs().max()) > 1e-6


@pytest.mark.parametrize("name", ["ewa", "swa", "sswa"])
def test_nothing_reaches_the_teacher_and_no_gradient_is_left_behind(name: str) -> None:
    teacher, student = Toy(4, 0), Toy(3, 1)
    value = term_of(name, teacher, student, images()).value
    assert all(parameter.grad is None for parameter in (*teacher.parameters(), *student.parameters()))
    value.backward()  # type: ignore[no-untyped-call]
    assert all(parameter.grad is None for parameter in teacher.parameters())
    assert student.body.weight.grad is not None


def test_both_maps_explain_the_teachers_class() -> None:
    teacher, x = Toy(4, 0), images()
    student = copy.deepcopy(teacher)
    with torch.no_grad():
        # The student answers otherwise, from the same features and with the same rows for the teacher's classes.
        student.fc.bias += torch.tensor([100.0, -100.0, 0.0], dtype=DTYPE)
    assert not torch.equal(teacher(x).argmax(1), student(x).argmax(1))
    assert float(term_of("swa", teacher, student, x).value.detach()) == pytest.approx(0, abs=1e-14)


def test_stochastic_variant_drops_teacher_channels_once_a_step_and_only_from_the_map() -> None:
    teacher, student, x = Toy(6, 0), Toy(6, 1), images()
    whole = term_of("swa", teacher, student, x).value
    assert torch.equal(term_of("sswa", teacher, student, x, rate=0.0).value, whole)
    assert not torch.equal(term_of("sswa", teacher, student, x, rate=0.5).value, whole)
    loss = MATCHING.load("sswa")(MatchingOptions(loss="sswa", drop_rate=0.5))
    source = generator()

    def step() -> float:
        pair = [forward_with_tap(model, "tap", x) for model in (teacher, student)]
        return float(loss(pair[0], pair[1], source).value.detach())

    first, second = step(), step()
    assert first != second
    source = generator()
    assert step() == first
    before = teacher.tap(teacher.body(x))
    torch.testing.assert_close(forward_with_tap(teacher, "tap", x).activation, before, rtol=0, atol=0)


def test_none_asks_for_nothing_and_gives_zero() -> None:
    loss = MATCHING.load("none")(MatchingOptions(loss="none"))
    assert not loss.needs_teacher
    assert not loss.needs_sensitivity
    tapped = Tapped(images(2), (images(2),))
    assert loss(tapped, tapped, generator()) == MatchingTerm(torch.zeros((), dtype=DTYPE), 0, 0)


def test_zero_maps_follow_the_written_rule() -> None:
    flat = torch.zeros(2, 3, dtype=DTYPE)
    ramp = torch.tensor([[1.0, 2, 3], [4, 5, 6]], dtype=DTYPE)
    # Teacher zero, student zero, both zero, equal maps.
    theirs = torch.stack([flat, ramp, flat, ramp])
    ours = torch.stack([ramp, flat, flat, ramp]).requires_grad_(True)
    found = map_distances(theirs, ours)
    assert found.teacher_zero.tolist() == [True, False, True, False]
    assert found.student_zero.tolist() == [False, True, True, False]
    assert found.each.tolist() == pytest.approx([0, 1 / 49, 0, 0])
    found.each.mean().backward()  # type: ignore[no-untyped-call]
    assert ours.grad is not None
    assert torch.isfinite(ours.grad).all()
    assert not ours.grad[:3].any()
    assert float(ours.grad[3].abs().max()) < 1e-15


def test_zero_teacher_maps_leave_the_papers_gradient() -> None:
    """The paper's code adds a constant for them and divides by the same batch size."""
    theirs = images(3)[:, 0].abs()
    theirs[1] = 0
    ours = [images(3, seed=1)[:, 0].abs().requires_grad_(True) for _ in range(2)]
    map_distances(theirs, ours[0]).each.mean().backward()  # type: ignore[no-untyped-call]
    (papers_term(theirs, ours[1]) * 16 / 49).backward()  # type: ignore[no-untyped-call]
    assert ours[0].grad is not None
    assert ours[1].grad is not None
    torch.testing.assert_close(ours[0].grad, ours[1].grad, rtol=1e-9, atol=1e-15)


def test_student_without_positive_evidence_gets_no_gradient() -> None:
    teacher, student, x = Toy(4, 0), Toy(3, 1), images()
    with torch.no_grad():
        # tanh is increasing and the activation positive: these signs make every sensitivity negative.
        student.hidden.weight.abs_()
        student.fc.weight.copy_(-student.fc.weight.abs())
    found = term_of("swa", teacher, student, x)
    assert found.teacher_zero + found.student_zero == len(x)
    assert found.student_zero > 0
    assert found.value.item() == pytest.approx(found.student_zero / len(x) / 49)
    gradients = torch.autograd.grad(found.value, list(student.parameters()), allow_unused=True)
    assert all(gradient is None or not gradient.any() for gradient in gradients)


def test_maps_of_different_size_are_an_error() -> None:
    with pytest.raises(BadInputError, match="different sizes"):
        map_distances(images(2)[:, 0], images(2, size=5)[:, 0])
