"""Attribution methods against their formulas in slow loops, and against pytorch-grad-cam and captum."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from itertools import combinations

import pytest
import torch
from captum.attr import InputXGradient, Saliency
from networks import CASES, LAYOUT_CASES, TAPS
from second_libraries import GradCAM, GradCAMPlusPlus, HiResCAM, LayerCAM, XGradCAM, raw_maps
from torch import nn

from edgekit.teacher.discovery import find_tap
from edgekit.teacher.explain import explain
from edgekit.teacher.methods.registry import METHODS

THEIRS = {
    "grad-cam": GradCAM,
    "grad-cam++": GradCAMPlusPlus,
    "hires-cam": HiResCAM,
    "layer-cam": LayerCAM,
    "xgrad-cam": XGradCAM,
}
Cells = list[list[float]]
Slow = Callable[[list[Cells], list[Cells]], Cells]


def zeros(like: Cells) -> Cells:
    return [[0.0] * len(row) for row in like]


def rectified(cells: Cells) -> Cells:
    return [[max(value, 0.0) for value in row] for row in cells]


def weighted(weights: list[float], activation: list[Cells]) -> Cells:
    result = zeros(activation[0])
    for weight, channel in zip(weights, activation, strict=True):
        for i, row in enumerate(channel):
            for j, value in enumerate(row):
                result[i][j] += weight * value
    return rectified(result)


def cellwise(activation: list[Cells], gradient: list[Cells], product: Callable[[float, float], float]) -> Cells:
    result = zeros(activation[0])
    for a, g in zip(activation, gradient, strict=True):
        for i, row in enumerate(a):
            for j, value in enumerate(row):
                result[i][j] += product(value, g[i][j])
    return result


def slow_grad_cam(activation: list[Cells], gradient: list[Cells]) -> Cells:
    cells = len(activation[0]) * len(activation[0][0])
    return weighted([math.fsum(value for row in g for value in row) / cells for g in gradient], activation)


def slow_hires_cam(activation: list[Cells], gradient: list[Cells]) -> Cells:
    return rectified(cellwise(activation, gradient, lambda a, g: a * g))


def slow_layer_cam(activation: list[Cells], gradient: list[Cells]) -> Cells:
    return rectified(cellwise(activation, gradient, lambda a, g: a * max(g, 0.0)))


def slow_grad_cam_plus_plus(activation: list[Cells], gradient: list[Cells]) -> Cells:
    weights = []
    for a, g in zip(activation, gradient, strict=True):
        total = math.fsum(value for row in a for value in row)
        weight = 0.0
        for row in g:
            for value in row:
                if value > 0:
                    weight += value**2 / (2 * value**2 + total * value**3 + 1e-6) * value
        weights.append(weight)
    return weighted(weights, activation)


def slow_xgrad_cam(activation: list[Cells], gradient: list[Cells]) -> Cells:
    weights = []
    for a, g in zip(activation, gradient, strict=True):
        total = math.fsum(value for row in a for value in row)
        both = math.fsum(x * y for left, right in zip(a, g, strict=True) for x, y in zip(left, right, strict=True))
        weights.append(both / (total + 1e-6))
    return weighted(weights, activation)


def slow_input_gradient(activation: list[Cells], gradient: list[Cells]) -> Cells:
    rows, columns = len(gradient[0]), len(gradient[0][0])
    return [[max(abs(channel[i][j]) for channel in gradient) for j in range(columns)] for i in range(rows)]


def slow_gradient_x_input(activation: list[Cells], gradient: list[Cells]) -> Cells:
    return cellwise(activation, gradient, lambda a, g: a * g)


SLOW: dict[str, Slow] = {
    "grad-cam": slow_grad_cam,
    "grad-cam++": slow_grad_cam_plus_plus,
    "gradient-x-input": slow_gradient_x_input,
    "hires-cam": slow_hires_cam,
    "input-gradient": slow_input_gradient,
    "layer-cam": slow_layer_cam,
    "xgrad-cam": slow_xgrad_cam,
}


def test_every_method_has_its_formula_here() -> None:
    assert set(SLOW) == set(METHODS.names())


def at_tap(model: nn.Module, tap: str, image: torch.Tensor, chosen: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Activation and gradient [C, h, w] of one image, by ordinary backpropagation from a leaf put in at the tap."""
    leaves: list[torch.Tensor] = []

    def cut(_module: nn.Module, _inputs: object, output: torch.Tensor) -> torch.Tensor:
        leaves.append(output.detach().clone().requires_grad_(True))
        return leaves[0] + 0

    handle = model.get_submodule(tap).register_forward_hook(cut)
    model(image[None])[0, chosen].backward()
    handle.remove()
    return leaves[0].detach()[0], leaves[0].grad[0]


def at_input(model: nn.Module, image: torch.Tensor, chosen: int) -> tuple[torch.Tensor, torch.Tensor]:
    leaf = image.clone().requires_grad_(True)
    model(leaf[None])[0, chosen].backward()
    return image, leaf.grad


@pytest.mark.parametrize("method", sorted(SLOW))
@pytest.mark.parametrize(("name", "tap"), TAPS)
def test_in_slow_loops(name: str, tap: str, method: str) -> None:
    model, images = copy.deepcopy(CASES[name].make()).double(), CASES[name].images(3).double()
    definition = METHODS.load(method)
    filled = 0
    found = explain(model, tap, definition, images, torch.tensor([0, 1, 2], dtype=torch.int32)).attribution
    for sample, image in enumerate(images):
        pair = at_input(model, image, sample) if definition.domain == "input" else at_tap(model, tap, image, sample)
        expected = torch.tensor(SLOW[method](*(part.tolist() for part in pair)), dtype=torch.float64)
        scale = float(expected.abs().max())
        assert float((found[sample] - expected).abs().max()) <= 1e-9 * scale
        filled += scale > 0
    assert filled, "empty maps would agree with anything"


@pytest.mark.parametrize("method", sorted(THEIRS))
@pytest.mark.parametrize(("name", "tap"), TAPS)
def test_as_pytorch_grad_cam_does_it_in_float32(name: str, tap: str, method: str) -> None:
    model, images, classes = CASES[name].make(), CASES[name].images(3), [0, 1, 2]
    found = explain(model, tap, METHODS.load(method), images, torch.tensor(classes, dtype=torch.int32)).attribution
    expected = raw_maps(THEIRS[method], model, tap, images, classes)
    scale = expected.flatten(1).amax(dim=1)
    assert scale.max() > 0
    if method == "xgrad-cam":
        # A channel whose sum nearly vanishes makes its quotient any number in float32, theirs as well as ours.
        judge = at_double(CASES[name].make(), tap, images, method)
        trusted = (expected - judge).abs().flatten(1).amax(dim=1) <= 1e-5 * scale
        assert trusted.any()
        found, expected, scale = found[trusted], expected[trusted], scale[trusted]
    assert ((found - expected).abs().flatten(1).amax(dim=1) <= 1e-5 * scale).all()


def at_double(model: nn.Module, tap: str, images: torch.Tensor, method: str) -> torch.Tensor:
    asked = torch.arange(len(images), dtype=torch.int32)
    return explain(copy.deepcopy(model).double(), tap, METHODS.load(method), images.double(), asked).attribution


@pytest.mark.parametrize("name", [*CASES, *LAYOUT_CASES])
def test_input_gradients_are_captums(name: str) -> None:
    case = (CASES | LAYOUT_CASES)[name]
    model, images = case.make(), case.images(3)
    asked = torch.tensor([0, 1, 2], dtype=torch.int32)
    leaf = images.clone().requires_grad_(True)
    pairs = (
        ("input-gradient", Saliency(model).attribute(leaf, target=[0, 1, 2], abs=True).amax(dim=1)),
        ("gradient-x-input", InputXGradient(model).attribute(leaf, target=[0, 1, 2]).sum(dim=1)),
    )
    for method, expected in pairs:
        found = explain(model, (), METHODS.load(method), images, asked).attribution
        scale = float(expected.detach().abs().max())
        assert scale > 0
        assert float((found - expected.detach()).abs().max()) <= 1e-5 * scale


@pytest.mark.parametrize("name", LAYOUT_CASES)
@pytest.mark.parametrize("method", sorted(THEIRS))
def test_maps_of_other_layouts_are_pytorch_grad_cams_with_a_reshape(name: str, method: str) -> None:
    case = LAYOUT_CASES[name]
    model, images, classes = case.make(), case.images(3), [0, 1, 2]
    tap = find_tap(model, images)

    class Reshaped(nn.Module):
        """The same network with a module that puts out [N, C, h, w] in the tap's place."""

        def __init__(self) -> None:
            super().__init__()
            self.model, self.map = model, nn.Identity()
            model.get_submodule(tap.name).register_forward_hook(self.through)

        def through(self, _module: nn.Module, _inputs: object, output: torch.Tensor) -> torch.Tensor:
            return tap.layout.from_map(self.map(tap.layout.to_map(output)), output)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.model(x)

    found = explain(model, tap, METHODS.load(method), images, torch.tensor(classes, dtype=torch.int32)).attribution
    expected = raw_maps(THEIRS[method], Reshaped().eval(), "map", images, classes)
    scale = float(expected.abs().max())
    assert scale > 0
    tolerance = 1e-4 if method == "xgrad-cam" else 1e-5
    assert float((found - expected).abs().max()) <= tolerance * scale


def test_methods_differ_where_they_should() -> None:
    """No two of them are one function under two names."""
    model, images = CASES["vgg"].make(), CASES["vgg"].images(4)
    asked = torch.zeros(4, dtype=torch.int32)
    maps = {
        name: explain(model, "features", METHODS.load(name), images, asked).attribution
        for name in METHODS.names()
        if METHODS.load(name).domain == "tap"
    }
    for (first, one), (second, other) in combinations(maps.items(), 2):
        assert not torch.allclose(one, other, rtol=1e-3, atol=1e-6), (first, second)
