"""Grad-CAM against its definition: on paper, in slow explicit loops, and in captum's implementation."""

from __future__ import annotations

import copy

import pytest
import torch
from captum.attr import LayerGradCam
from networks import CASES, TAPS, Case
from torch import nn

from edgekit.teacher.explain import explain
from edgekit.teacher.methods.grad_cam import GRAD_CAM


def maps_of(model: nn.Module, tap: str, images: torch.Tensor, classes: list[int]) -> list[torch.Tensor]:
    explained = explain(model, tap, GRAD_CAM, images, torch.tensor(classes, dtype=torch.int32))
    assert torch.equal(explained.logits, model(images))
    return list(explained.attribution)


class OnPaper(nn.Module):
    """Two channels of two cells, averaged and weighted: every number of it can be worked out by hand."""

    def __init__(self, weight: list[list[float]]) -> None:
        super().__init__()
        self.tap = nn.Identity()
        self.weight = torch.tensor(weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.tap(x).mean((2, 3)) @ self.weight.t()


# Channel 1 holds 1 and 3, channel 2 holds 2 and -1.
FOUR_NUMBERS = torch.tensor([[[[1.0, 3.0]], [[2.0, -1.0]]]])


def test_on_paper() -> None:
    # logits: 2 * 2 - 1 * 0.5 = 3.5 and its opposite; alpha of class 0: (2, -1) / 2 cells = (1, -0.5)
    # map of class 0: relu(1 * (1, 3) - 0.5 * (2, -1)) = relu((0, 3.5))
    model = OnPaper([[2.0, -1.0], [-2.0, 1.0]])
    assert model(FOUR_NUMBERS).tolist() == [[3.5, -3.5]]
    (found,) = maps_of(model, "tap", FOUR_NUMBERS, [0])
    assert found.tolist() == [[0.0, 3.5]]


def test_the_sign_that_the_relu_hides() -> None:
    """Class 1 has exactly the negated map; a sign lost anywhere would show class 0's in its place."""
    model = OnPaper([[2.0, -1.0], [-2.0, 1.0]])
    (found,) = maps_of(model, "tap", FOUR_NUMBERS, [1])
    assert found.tolist() == [[0.0, 0.0]]
    # alpha (-1, 1): relu((-1, -3) + (2, -1)) = relu((1, -4))
    (mixed,) = maps_of(OnPaper([[-2.0, 2.0], [0.0, 0.0]]), "tap", FOUR_NUMBERS, [0])
    assert mixed.tolist() == [[1.0, 0.0]]


def test_minus_one_is_the_networks_own_answer() -> None:
    model = OnPaper([[2.0, -1.0], [-2.0, 1.0]])
    images = torch.cat([FOUR_NUMBERS, -FOUR_NUMBERS, FOUR_NUMBERS])
    found = maps_of(model, "tap", images, [-1, -1, 1])
    # The negated image is answered with class 1: alpha (-1, 0.5), map relu((1, 3) + 0.5 * (-2, 1)) = (0, 3.5)
    assert [one.tolist() for one in found] == [[[0.0, 3.5]], [[0.0, 3.5]], [[0.0, 0.0]]]


class ReadsOneCell(nn.Module):
    """logit = 5 * (cell 0 of channel 1): the gradient is 5 at one cell of four, so alpha is 5 / 4 everywhere."""

    def __init__(self) -> None:
        super().__init__()
        self.tap = nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        cell = self.tap(x)[:, 0, 0, 0]
        return torch.stack([5 * cell, -cell], dim=1)


def test_alpha_is_the_mean_of_the_gradient_over_the_cells() -> None:
    image = torch.tensor([[[[1.0, 2.0], [3.0, -4.0]]]])
    found = maps_of(ReadsOneCell(), "tap", image, [0])
    assert found[0].tolist() == [[1.25, 2.5], [3.75, 0.0]]


class Squares(nn.Module):
    """logit = (mean of the cells) squared: d/dA = 2 * mean / cells, which depends on the image."""

    def __init__(self) -> None:
        super().__init__()
        self.tap = nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        mean = self.tap(x).mean((1, 2, 3))
        return torch.stack([mean**2, -(mean**2)], dim=1)


def test_a_gradient_that_depends_on_the_image() -> None:
    images = torch.tensor([[[[1.0, 3.0]]], [[[-2.0, -6.0]]], [[[3.0, -1.0]]]])
    # means 2, -4, 1; gradients 2 * mean / 2 cells = 2, -4, 1
    found = maps_of(Squares(), "tap", images, [0, 0, 0])
    assert [one.tolist() for one in found] == [[[2.0, 6.0]], [[8.0, 24.0]], [[3.0, 0.0]]]


def slowly(model: nn.Module, tap: str, image: torch.Tensor, chosen: int) -> torch.Tensor:
    """One sample's map by ordinary backpropagation and loops over channels, rows and columns."""
    leaves = []

    def cut(_module: nn.Module, _inputs: object, output: torch.Tensor) -> torch.Tensor:
        leaves.append(output.detach().clone().requires_grad_(True))
        return leaves[0] + 0

    handle = model.get_submodule(tap).register_forward_hook(cut)
    logits = model(image[None])
    handle.remove()
    logits[0, chosen].backward()
    activation, gradient = leaves[0].detach()[0], leaves[0].grad[0]
    channels, height, width = activation.shape
    result = torch.zeros(height, width, dtype=activation.dtype)
    for channel in range(channels):
        alpha = 0.0
        for row in range(height):
            for column in range(width):
                alpha += float(gradient[channel, row, column]) / (height * width)
        for row in range(height):
            for column in range(width):
                result[row, column] += alpha * float(activation[channel, row, column])
    return result.clamp(min=0)


def doubled(case: Case) -> tuple[nn.Module, torch.Tensor]:
    return copy.deepcopy(case.make()).double(), case.images(3).double()


def check_close(found: torch.Tensor, expected: torch.Tensor, tolerance: float) -> None:
    scale = float(expected.abs().max())
    assert scale > 0, "an empty map would agree with anything"
    assert float((found - expected).abs().max()) <= tolerance * scale


@pytest.mark.parametrize(("name", "tap"), TAPS)
def test_in_slow_loops(name: str, tap: str) -> None:
    model, images = doubled(CASES[name])
    classes = int(model(images).shape[1])
    filled = 0
    for chosen in range(classes):
        found = maps_of(model, tap, images, [chosen] * len(images))
        for image, one in zip(images, found, strict=True):
            expected = slowly(model, tap, image, chosen)
            assert torch.equal(expected > 1e-12, one > 1e-12)
            if float(expected.max()) > 0:
                check_close(one, expected, 1e-9)
                filled += 1
    assert filled >= classes, "too many empty maps to say anything"


@pytest.mark.parametrize(("name", "tap"), TAPS)
def test_as_captum_does_it(name: str, tap: str) -> None:
    model, images = doubled(CASES[name])
    for chosen in range(3):
        found = torch.stack(maps_of(model, tap, images, [chosen] * len(images)))
        method = LayerGradCam(model, model.get_submodule(tap))
        expected = method.attribute(images, target=chosen, relu_attributions=True)[:, 0].detach()
        if float(expected.max()) > 0:
            check_close(found, expected, 1e-5)
        else:
            assert float(found.max()) == 0


@pytest.mark.parametrize(("name", "tap"), TAPS)
def test_a_sample_does_not_depend_on_the_batch_it_is_in(name: str, tap: str) -> None:
    model, images = doubled(CASES[name])
    together = maps_of(model, tap, images, [0, -1, 1])
    for image, chosen, one in zip(images, [0, -1, 1], together, strict=True):
        (alone,) = maps_of(model, tap, image[None], [chosen])
        assert torch.allclose(alone, one, rtol=1e-9, atol=1e-12)
