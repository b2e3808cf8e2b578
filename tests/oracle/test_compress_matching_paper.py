"""What the paper and its released code say of the matching term, point by point, against slow oracles in float64."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import CASES, TAPS, Tokens
from second_libraries import GradCAM, raw_maps
from torch import nn
from torch.nn import functional

from edgekit.compress.matching.distance import map_distances
from edgekit.compress.matching.protocol import MatchingTerm
from edgekit.compress.matching.registry import MATCHING
from edgekit.compress.matching.second_order import differentiable_twice
from edgekit.compress.matching.sensitivity import sensitivities, sensitivity_map
from edgekit.compress.options import MatchingOptions
from edgekit.errors import BadInputError
from edgekit.teacher.explain import explain
from edgekit.teacher.layouts import Layout
from edgekit.teacher.methods.grad_cam import GRAD_CAM
from edgekit.teacher.tap import Tap, Tapped, as_tap, forward_with_tap, forward_with_taps, head_from_tap

DTYPE = torch.float64
MATCHED = ("ewa", "swa", "sswa")


class TwoTaps(nn.Module):
    """Maps of two sizes, and answers that depend on both."""

    def __init__(self, width: int, seed: int, classes: int = 4) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(2, width, 3, padding=1), nn.Softplus())
        self.second = nn.Sequential(nn.Conv2d(width, width + 1, 3, stride=2, padding=1), nn.Softplus())
        self.mix, self.fc = nn.Linear(width + (width + 1) * 4, 5), nn.Linear(5, classes)
        source = torch.Generator().manual_seed(seed)
        for parameter in self.parameters():
            parameter.data = torch.randn(parameter.shape, generator=source, dtype=DTYPE) * 0.5

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        first = self.first(x)
        second = self.second(first)
        joined = torch.cat([first.square().mean((2, 3)), second.flatten(1)], dim=1)
        return self.fc(torch.tanh(self.mix(joined)))


NAMES = ("first", "second")


def images(count: int = 4, side: int = 4, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, 2, side, side, generator=torch.Generator().manual_seed(seed), dtype=DTYPE)


def source(seed: int = 5) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def term(
    teacher: nn.Module, student: nn.Module, x: torch.Tensor, taps: tuple[Tap | str, ...] = NAMES, **options: Any
) -> MatchingTerm:
    places = tuple(as_tap(tap) for tap in taps)
    chosen = MatchingOptions(**options)
    theirs, ours = forward_with_taps(teacher, places, x), forward_with_taps(student, places, x)
    return MATCHING.load(chosen.loss)(chosen)(theirs, ours, source())


def slow_map(model: nn.Module, tap: str, image: torch.Tensor, chosen: int) -> list[float]:
    """Loops, and central differences cell by cell."""
    activation = forward_with_tap(model, tap, image[None]).activation[0].detach()
    head = head_from_tap(model, tap, image[None])
    cells = [0.0] * activation[0].numel()
    for channel, plane in enumerate(activation):
        alpha = 0.0
        for index in range(plane.numel()):
            sides = []
            for step in (1e-5, -1e-5):
                moved = activation.clone()
                moved[channel].view(-1)[index] += step
                sides.append(float(head(moved[None])[0, chosen]))
            alpha += (sides[0] - sides[1]) / 2e-5
        for index, value in enumerate(plane.flatten().tolist()):
            cells[index] += alpha * value
    return [max(cell, 0.0) for cell in cells]


def slow_distance(theirs: list[float], ours: list[float]) -> float | None:
    """By the paper at 7 x 7; None where the teacher has no map."""
    norms = [math.sqrt(math.fsum(cell**2 for cell in cells)) for cells in (theirs, ours)]
    if norms[0] == 0:
        return None
    return math.fsum((a / norms[0] - b / (norms[1] or 1)) ** 2 for a, b in zip(theirs, ours, strict=True)) / 49


def slow_term(
    teacher: nn.Module, student: nn.Module, x: torch.Tensor, weights: tuple[float, ...], classes: list[list[int]]
) -> float:
    total = 0.0
    with torch.no_grad():
        for image, chosen in zip(x, classes, strict=True):
            for tap, weight in zip(NAMES, weights, strict=True):
                found = [
                    slow_distance(slow_map(teacher, tap, image, each), slow_map(student, tap, image, each))
                    for each in chosen
                ]
                present = [each for each in found if each is not None]
                total += weight / sum(weights) * math.fsum(present) / max(1, len(present))
    return total / len(x)


@pytest.mark.parametrize("weights", [(), (3.0, 1.0), (0.0, 2.0)])
def test_several_taps_are_a_weighted_mean(weights: tuple[float, ...]) -> None:
    teacher, student, x = TwoTaps(3, 0), TwoTaps(2, 1), images(3)
    top = [[int(index)] for index in teacher(x).argmax(1)]
    expected = slow_term(teacher, student, x, weights or (1.0, 1.0), top)
    assert expected > 1e-3
    assert term(teacher, student, x, weights=weights).value.item() == pytest.approx(expected, rel=1e-6)


def test_every_positive_class_counts_and_none_means_the_top_one() -> None:
    teacher, student, x = TwoTaps(3, 0), TwoTaps(2, 1), images(3)
    wanted = torch.tensor([[-3.0, -1, -2, -4], [-1, 2, -3, -2], [3, -1, 1, 2]], dtype=DTYPE)

    class Answers(nn.Module):
        """The teacher with answers that are moved image by image, which no gradient sees."""

        def __init__(self) -> None:
            super().__init__()
            self.inner = teacher
            self.first, self.second = teacher.first, teacher.second

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return teacher(x) + moved[: len(x)]

    moved = wanted - teacher(x).detach()
    expected = slow_term(teacher, student, x, (1.0, 1.0), [[1], [1], [0, 3, 2]])
    found = term(Answers(), student, x, classes="positive")
    assert found.value.item() == pytest.approx(expected, rel=1e-6)
    top = slow_term(teacher, student, x, (1.0, 1.0), [[1], [1], [0]])
    assert term(Answers(), student, x).value.item() == pytest.approx(top, rel=1e-6)
    assert abs(top - expected) > 1e-4


def weights_of_the_map(student: TwoTaps, loss: str = "swa", taps: tuple[str, ...] = NAMES) -> list[nn.Parameter]:
    """What the term depends on: the answer's own bias has no say in a gradient, and EWA asks for no answer."""
    layers = [student.get_submodule(tap) for tap in taps] if loss == "ewa" else [student]
    return [value for layer in layers for value in layer.parameters() if value is not student.fc.bias]


@pytest.mark.parametrize("loss", ["swa", "sswa"])
def test_sum_and_mean_pooling_are_the_same_loss(loss: str) -> None:
    teacher, student, x = TwoTaps(5, 0), TwoTaps(2, 1), images()
    found = []
    for pooling in ("sum", "mean"):
        value = term(teacher, student, x, loss=loss, pooling=pooling).value
        found.append([value, *torch.autograd.grad(value, weights_of_the_map(student))])
    for own, other in zip(*found, strict=True):
        torch.testing.assert_close(own, other, rtol=1e-9, atol=1e-14)


@pytest.mark.parametrize("loss", MATCHED)
def test_cosine_is_squared_l2_times_49_halves(loss: str) -> None:
    teacher, student, x = TwoTaps(5, 0), TwoTaps(2, 1), images()
    found = []
    for distance in ("squared-l2", "cosine"):
        of_batch = term(teacher, student, x, ("first",), loss=loss, distance=distance)
        gradients = torch.autograd.grad(of_batch.value, weights_of_the_map(student, loss, ("first",)))
        # A student's map that is zero adds a constant: 1 / 49 as in the released code, and 1 as in e2KD.
        constant = 1.0 if distance == "cosine" else 1 / 49
        found.append([of_batch.value - of_batch.student_zero / len(x) * constant, *gradients])
    for squared, cosine in zip(*found, strict=True):
        torch.testing.assert_close(squared * 49 / 2, cosine, rtol=1e-9, atol=1e-14)


def released_term(theirs: torch.Tensor, ours: torch.Tensor) -> torch.Tensor:
    """As the released code has it: rows of cells divided by their norm, then the mean square over batch and cells."""
    rows = [functional.normalize(maps.reshape(len(maps), -1), p=2, dim=1) for maps in (theirs, ours)]
    return functional.mse_loss(rows[1], rows[0])


@pytest.mark.parametrize("side", [7, 14])
def test_beta_converts_as_documented(side: int) -> None:
    draw = torch.Generator().manual_seed(side)
    theirs = torch.rand(5, side, side, generator=draw, dtype=DTYPE)
    each = [torch.rand(5, side, side, generator=draw, dtype=DTYPE).requires_grad_(True)]
    each.append(each[0].detach().clone().requires_grad_(True))
    ours = 100 * map_distances(theirs, each[0]).each.mean()
    released = 100 * side * side / 49 * released_term(theirs, each[1])
    torch.testing.assert_close(ours, released, rtol=1e-12, atol=0)
    gradients = [torch.autograd.grad(value, maps)[0] for value, maps in zip((ours, released), each, strict=True)]
    torch.testing.assert_close(*gradients, rtol=1e-9, atol=1e-15)
    cosine = map_distances(theirs, each[0], "cosine").each.mean()
    assert (ours / cosine).item() == pytest.approx(4.0816, abs=1e-4)


def lit(channels: int, count: int = 3) -> Tapped:
    """Channel c lights cell c, and every sensitivity is one: the map says which channels are in it."""
    activation = torch.eye(channels, dtype=DTYPE)[None, :, None, :].repeat(count, 1, 1, 1).requires_grad_(True)
    own = activation.sum(dim=(2, 3)).sum(dim=1) / channels
    return Tapped(torch.stack([own, own - 1], dim=1), (activation,))


@pytest.mark.parametrize(
    ("channels", "rate", "dropped"), [(512, 0.3, 153), (512, 0.7, 358), (100, 0.29, 29), (9, 0.1, 0)]
)
def test_stochastic_variant_drops_the_papers_number_of_channels_for_the_whole_batch(
    channels: int, rate: float, dropped: int
) -> None:
    student = lit(channels)
    loss = MATCHING.load("sswa")(MatchingOptions(loss="sswa", drop_rate=rate))
    value = loss(lit(channels), student, source()).value
    # The teacher's map is one on C - d cells, the student's on all C.
    assert value.item() == pytest.approx(2 * (1 - math.sqrt((channels - dropped) / channels)) / 49, abs=1e-12)
    if dropped:
        (gradient,) = torch.autograd.grad(value, student.activation)
        cells = gradient[:, :, 0, :].sum(dim=1)
        # Cells the teacher's map lacks are pushed down, and they are the same ones in every sample.
        assert (cells[0] > 0).sum() == dropped
        assert torch.equal(cells[0] > 0, cells[1] > 0)
        assert torch.equal(cells[0] > 0, cells[2] > 0)


def test_a_dropped_channel_leaves_the_teachers_class_and_sensitivity_alone() -> None:
    """All channels but one are out of the map: what is left is that channel's own activation, times its weight."""
    teacher, student, x = TwoTaps(6, 0), TwoTaps(2, 1), images()
    loss = MATCHING.load("sswa")(MatchingOptions(loss="sswa", drop_rate=5 / 6 + 1e-6))
    theirs, ours = forward_with_taps(teacher, (Tap("first"),), x), forward_with_taps(student, (Tap("first"),), x)
    chosen = theirs.logits.argmax(1)
    kept = torch.randperm(6, generator=source())[5]
    weights = sensitivities(theirs, chosen, differentiable=False)[0]
    shown = torch.zeros_like(theirs.activation)
    shown[:, kept] = theirs.activation[:, kept].detach()
    own = sensitivity_map(sensitivities(ours, chosen, differentiable=False)[0], ours.activation)
    expected = map_distances(sensitivity_map(weights, shown).detach(), own).each.mean()
    torch.testing.assert_close(loss(theirs, ours, source()).value, expected, rtol=1e-12, atol=0)


@pytest.mark.parametrize(("name", "tap"), TAPS)
def test_the_map_is_grad_cam_up_to_the_number_of_cells(name: str, tap: str) -> None:
    model, x = copy.deepcopy(CASES[name].make()).double(), CASES[name].images(3).double()
    classes = torch.tensor([0, 2, 1])
    model.requires_grad_(True)
    tapped = forward_with_tap(model, tap, x)
    found = sensitivity_map(sensitivities(tapped, classes, differentiable=False)[0], tapped.activation).detach()
    cells = found.shape[1] * found.shape[2]
    own = explain(model.requires_grad_(False), tap, GRAD_CAM, x, classes.to(torch.int32)).attribution
    assert float(own.max()) > 0
    torch.testing.assert_close(found, own * cells, rtol=1e-9, atol=1e-12)
    other = raw_maps(GradCAM, model, tap, x, classes.tolist())
    torch.testing.assert_close(found, other * cells, rtol=1e-9, atol=1e-12)


def test_cosine_of_mean_pooled_maps_is_the_loss_of_e2kd() -> None:
    """1 - cosine of Grad-CAM with mean-pooled gradients for the teacher's answer, at the map's own resolution."""
    teacher, student = (copy.deepcopy(CASES["residual"].make()).double() for _ in range(2))
    draw = torch.Generator().manual_seed(1)
    for parameter in student.parameters():
        parameter.data += 0.05 * torch.randn(parameter.shape, generator=draw, dtype=DTYPE)
    x = CASES["residual"].images(6).double()
    answers = teacher(x).argmax(1).to(torch.int32)
    maps = [explain(model, "layer2", GRAD_CAM, x, answers).attribution.flatten(1) for model in (teacher, student)]
    assert all(float(rows.norm(dim=1).min()) > 0 for rows in maps)
    expected = (1 - functional.cosine_similarity(*maps, dim=1)).mean()
    teacher.requires_grad_(True), student.requires_grad_(True)
    found = term(teacher, student, x, ("layer2",), distance="cosine", pooling="mean")
    assert 1e-4 < found.value.item() == pytest.approx(expected.item(), rel=1e-9)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    loss=st.sampled_from(MATCHED),
    scale=st.floats(1e-2, 1e2),
    count=st.integers(1, 3),
    width=st.integers(1, 4),
)
def test_term_is_bounded_and_blind_to_scale_and_order_of_the_students_channels(
    seed: int, loss: str, scale: float, count: int, width: int
) -> None:
    teacher, student, x = TwoTaps(3, seed), TwoTaps(width, seed + 1), images(count, seed=seed)
    value = term(teacher, student, x, ("first",), loss=loss).value.item()
    assert 0 <= value <= 2 / 49 + 1e-12
    assert term(teacher, copy.deepcopy(teacher), x, ("first",), loss=loss, drop_rate=0.0).value.item() < 1e-14
    order = torch.randperm(width, generator=source(seed))
    with torch.no_grad():
        student.fc.weight *= scale
        for tensor in (student.first[0].weight, student.first[0].bias):
            tensor.copy_(tensor[order])
        student.second[0].weight.copy_(student.second[0].weight[:, order])
        student.mix.weight[:, :width] = student.mix.weight[:, :width][:, order]
    assert term(teacher, student, x, ("first",), loss=loss).value.item() == pytest.approx(value, rel=1e-7, abs=1e-13)


HEADS: dict[str, Callable[[], nn.Module]] = {
    "stored-batch-norm": lambda: nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4).eval(), nn.Tanh()),
    "dropout": lambda: nn.Sequential(nn.Dropout(0.5), nn.Conv2d(3, 4, 3), nn.Tanh()),
    "max-pool": lambda: nn.Sequential(nn.MaxPool2d(2), nn.Conv2d(3, 4, 2), nn.Softplus()),
    "depthwise": lambda: nn.Sequential(nn.Conv2d(3, 3, 3, groups=3), nn.Softplus(), nn.Conv2d(3, 4, 1)),
    "layer-norm": lambda: nn.Sequential(nn.LayerNorm([3, 4, 4]), nn.Conv2d(3, 4, 3), nn.GELU()),
    "hardswish": lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.Hardswish()),
}


class Headed(nn.Module):
    def __init__(self, head: nn.Module, seed: int) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(2, 3, 3, padding=1), nn.Softplus())
        self.head, self.fc = head, nn.LazyLinear(4)
        self.double()
        self(images(1))
        draw = torch.Generator().manual_seed(seed)
        for parameter in self.parameters():
            parameter.data = torch.randn(parameter.shape, generator=draw, dtype=DTYPE) * 0.4

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.head(self.first(x)).square().flatten(1))


def whole_term(teacher: nn.Module, student: nn.Module, taps: tuple[Tap, Tap], x: torch.Tensor) -> Any:
    """SWA as a function of every parameter of the student, its dropout always with the same mask."""
    names = [name for name, _ in student.named_parameters()]
    theirs = forward_with_taps(teacher, taps[:1], x)
    loss = MATCHING.load("swa")(MatchingOptions())

    def value(*values: torch.Tensor) -> torch.Tensor:
        # Of a copy, in which the values stand as they come, since the taps look modules up by name.
        model = copy.deepcopy(student)
        for name, tensor in zip(names, values, strict=True):
            owner, _, last = name.rpartition(".")
            module = model.get_submodule(owner)
            delattr(module, last)
            setattr(module, last, tensor)
        with torch.random.fork_rng():
            torch.manual_seed(0)
            seen = forward_with_taps(model, taps[1:], x, beyond=differentiable_twice)
        return loss(theirs, seen, source()).value

    return value, tuple(parameter.detach().clone().requires_grad_(True) for parameter in student.parameters())


@pytest.mark.parametrize("name", HEADS)
def test_gradient_of_the_whole_term_is_that_of_finite_steps(name: str) -> None:
    teacher, student = TwoTaps(3, 0), Headed(HEADS[name](), 1)
    value, values = whole_term(teacher, student, (Tap("first"), Tap("first")), images(3))
    assert value(*values).item() > 1e-5
    assert torch.autograd.gradcheck(value, values, eps=1e-7, atol=1e-5, fast_mode=True)


def test_gradient_of_the_whole_term_at_tokens() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        student = Tokens(1, width=4).double()
    teacher = nn.Sequential(nn.Conv2d(3, 4, 4, stride=4), nn.Softplus(), nn.Flatten(), nn.Linear(48, 4)).double()
    x = torch.randn(2, 3, 16, 12, generator=source(), dtype=DTYPE)
    taps = Tap("1"), Tap("blocks.1.norm1", Layout("tokens", 4, 3, 1))
    value, values = whole_term(teacher, student, taps, x)
    assert value(*values).item() > 1e-5
    assert torch.autograd.gradcheck(value, values, eps=1e-7, atol=1e-5, fast_mode=True)


class TestBadInput:
    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"beta": -1.0}, "beta"),
            ({"weights": (1.0, -0.5)}, "weights"),
            ({"weights": (0.0, 0.0)}, "weights"),
            ({"drop_rate": 1.0}, "drop_rate"),
            ({"distance": "l1"}, "distance"),
        ],
    )
    def test_options_out_of_range(self, options: dict[str, Any], message: str) -> None:
        with pytest.raises(BadInputError, match=message):
            MatchingOptions(**options)

    @pytest.mark.parametrize("loss", MATCHED)
    def test_networks_that_do_not_belong_together(self, loss: str) -> None:
        x = images(2)
        with pytest.raises(BadInputError, match="differ in classes"):
            term(TwoTaps(3, 0), TwoTaps(2, 1, classes=3), x, loss=loss)
        with pytest.raises(BadInputError, match="one weight"):
            term(TwoTaps(3, 0), TwoTaps(2, 1), x, loss=loss, weights=(1.0,))
        matching = MATCHING.load(loss)(MatchingOptions(loss=loss))
        both = tuple(Tap(name) for name in NAMES)
        seen = forward_with_taps(TwoTaps(3, 0), both, x)
        for taps, message in ((both[:1], "differ in taps"), (both[::-1], "different sizes")):
            with pytest.raises(BadInputError, match=message):
                matching(seen, forward_with_taps(TwoTaps(2, 1), taps, x), source())

    @pytest.mark.parametrize("loss", MATCHED)
    def test_a_batch_of_one_is_a_batch(self, loss: str) -> None:
        teacher, student, x = TwoTaps(3, 0), TwoTaps(2, 1), images(3)
        each = [term(teacher, student, image[None], loss=loss).value.item() for image in x]
        assert term(teacher, student, x, loss=loss).value.item() == pytest.approx(sum(each) / 3, rel=1e-12)

    @pytest.mark.parametrize("loss", MATCHED)
    def test_a_dead_tap_is_counted_and_adds_nothing(self, loss: str) -> None:
        teacher, student, x = TwoTaps(3, 0), TwoTaps(2, 1), images(3)
        dead = copy.deepcopy(teacher)
        dead.second[1] = nn.Threshold(1e9, 0.0)
        found = term(dead, student, x, ("second",), loss=loss)
        assert (found.value.item(), found.teacher_zero, found.student_zero) == (0.0, 3, 0)
        # Beside another one that lives, it counts for its weight and nothing else.
        found, alone = term(dead, student, x, loss=loss), term(dead, student, x, ("first",), loss=loss)
        assert found.teacher_zero == alone.teacher_zero < 3
        assert found.value.item() == pytest.approx(alone.value.item() / 2, rel=1e-12)

    @pytest.mark.parametrize("loss", MATCHED)
    def test_a_student_that_is_not_a_number_makes_the_term_so(self, loss: str) -> None:
        teacher, student = TwoTaps(3, 0), TwoTaps(2, 1)
        with torch.no_grad():
            student.first[0].bias[0] = math.nan
        assert math.isnan(term(teacher, student, images(2), loss=loss).value.item())

    def test_half_precision_is_compared_in_single(self) -> None:
        big = torch.full((2, 4, 2, 2), 300.0, dtype=torch.float16).requires_grad_(True)
        seen = Tapped(torch.stack([big.float().mean((1, 2, 3)) * 9, big.float().sum((1, 2, 3)) * 0], 1), (big,))
        for loss in MATCHED:
            found = MATCHING.load(loss)(MatchingOptions(loss=loss, drop_rate=0.0))(seen, seen, source()).value
            assert found.dtype == torch.float32
            assert found.item() == pytest.approx(0, abs=1e-9)
