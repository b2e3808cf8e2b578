"""What the student runs behind its taps: torch's own nodes are the truth, the definition, and finite steps."""

from __future__ import annotations

import copy
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import CASES
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from edgekit.compress.matching.second_order import differentiable_twice
from edgekit.teacher.tap import Tap, forward_with_taps, head_from_tap

DTYPE = torch.float64
CONVOLUTIONS: dict[str, Callable[[], nn.Module]] = {
    "plain": lambda: nn.Conv2d(4, 6, 3, padding=1),
    "no-bias": lambda: nn.Conv2d(4, 3, 3, bias=False),
    "strided": lambda: nn.Conv2d(4, 6, 3, stride=2, padding=1),
    "oblong": lambda: nn.Conv2d(4, 6, (3, 1), stride=(1, 2), padding=(1, 0)),
    "dilated": lambda: nn.Conv2d(4, 2, 3, padding=2, dilation=2),
    "grouped": lambda: nn.Conv2d(4, 6, 3, padding=1, groups=2),
    "depthwise": lambda: nn.Conv2d(4, 4, 3, stride=2, padding=1, groups=4, bias=False),
    "multiplied-depthwise": lambda: nn.Conv2d(4, 8, 3, padding=1, groups=4),
    "pointwise": lambda: nn.Conv2d(4, 5, 1),
}
NORMS: dict[str, Callable[[], nn.Module]] = {
    "batch": lambda: nn.BatchNorm2d(4),
    "stored": lambda: nn.BatchNorm2d(4).eval(),
    "stored-without-scale": lambda: nn.BatchNorm2d(4, affine=False).eval(),
    "batch-without-scale": lambda: nn.BatchNorm2d(4, affine=False),
    "batch-large-eps": lambda: nn.BatchNorm2d(4, eps=0.5),
    "batch-without-store": lambda: nn.BatchNorm2d(4, track_running_stats=False),
    "batch-cumulative": lambda: nn.BatchNorm2d(4, momentum=None),
}
MODULES = {**CONVOLUTIONS, **NORMS}


def drawn(module: nn.Module, seed: int = 0) -> nn.Module:
    source = torch.Generator().manual_seed(seed)
    for tensor in (*module.parameters(), *module.buffers()):
        if tensor.is_floating_point():
            tensor.data = torch.rand(tensor.shape, generator=source, dtype=DTYPE) + 0.3
    for parameter in module.parameters():
        parameter.data -= 0.8
    return module


def features(seed: int = 1, shape: tuple[int, ...] = (3, 4, 5, 6)) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=DTYPE).requires_grad_(True)


def twice(module: nn.Module, x: torch.Tensor, *, ours: bool) -> list[torch.Tensor]:
    """The output, its gradient by the input, and every derivative of a function of both.

    Where it is not `ours`: by torch's nodes, and for batch statistics by the definition, which holds them.
    """
    with differentiable_twice() if ours else nullcontext():
        y = module(x)
    source = torch.Generator().manual_seed(7)
    answer = (torch.randn(y.shape, generator=source, dtype=DTYPE) * torch.tanh(y)).sum()
    if ours or not (isinstance(module, nn.BatchNorm2d) and module.training):
        (gradient,) = torch.autograd.grad(answer, x, create_graph=True)
    else:
        (g,) = torch.autograd.grad(answer, y, create_graph=True)
        deviation = (x.detach().var(dim=(0, 2, 3), unbiased=False) + module.eps).sqrt()
        scale = torch.ones_like(deviation) if module.weight is None else module.weight
        gradient = g * (scale / deviation)[:, None, None]
    v = torch.randn(x.shape, generator=source, dtype=DTYPE)
    total = (gradient * v).sum() ** 2 + (gradient.sum(dim=(2, 3)) ** 3).sum() + answer
    return [y, gradient, *torch.autograd.grad(total, [x, *module.parameters()])]


@pytest.mark.parametrize("name", MODULES)
def test_values_and_derivatives_of_both_orders_are_those_of_the_definition(name: str) -> None:
    modules = [drawn(MODULES[name]()) for _ in range(2)]
    found, expected = (
        twice(module, features(), ours=ours) for module, ours in zip(modules, (True, False), strict=True)
    )
    assert torch.equal(found[0], expected[0])
    assert type(found[0].grad_fn).__name__ != type(expected[0].grad_fn).__name__
    for own, theirs in zip(found[1:], expected[1:], strict=True):
        assert_close(own, theirs)
    for own, theirs in zip(modules[0].buffers(), modules[1].buffers(), strict=True):
        assert torch.equal(own, theirs)


def assert_close(own: torch.Tensor, theirs: torch.Tensor, tolerance: float = 1e-9) -> None:
    torch.testing.assert_close(own, theirs, rtol=tolerance, atol=tolerance * float(theirs.detach().abs().max()) + 1e-15)


@pytest.mark.parametrize("name", [*CONVOLUTIONS, "stored"])
def test_derivatives_of_both_orders_are_those_of_finite_steps(name: str) -> None:
    module = drawn(MODULES[name]())
    names = [found for found, _ in module.named_parameters()]

    def called(x: torch.Tensor, *values: torch.Tensor) -> torch.Tensor:
        with differentiable_twice():
            return torch.func.functional_call(module, dict(zip(names, values, strict=True)), (x,))

    values = (
        features(shape=(2, 4, 3, 3)),
        *(item.detach().clone().requires_grad_(True) for item in module.parameters()),
    )
    assert torch.autograd.gradcheck(called, values)
    assert torch.autograd.gradgradcheck(called, values)


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    shape=st.tuples(st.integers(1, 4), st.integers(1, 5), st.integers(1, 4), st.integers(2, 5)),
    eps=st.sampled_from([1e-5, 1e-2, 1.0]),
    affine=st.booleans(),
    last=st.booleans(),
)
def test_batch_norm_of_any_shape(seed: int, shape: tuple[int, ...], eps: float, affine: bool, last: bool) -> None:
    module = drawn(nn.BatchNorm2d(shape[1], eps=eps, affine=affine), seed)
    x = features(seed, shape).detach()
    if last:
        x = x.contiguous(memory_format=torch.channels_last)
    found, expected = (
        twice(copy.deepcopy(module), x.clone().requires_grad_(True), ours=ours) for ours in (True, False)
    )
    for own, theirs in zip(found, expected, strict=True):
        assert_close(own, theirs, 1e-6)


NETWORKS = [
    ("residual", "layer1"),
    ("mobile", "block1"),
    ("inverted", "project"),
    ("dense", "grow1"),
    ("vgg", "features.1"),
    ("norms", "features"),
]


class Recorded:
    """A network whose batch normalisations let gradients through as if their statistics were numbers.

    Once recorded they put out `y0 + scale s0 (x - x0)`: the same value, and the slope with `s0` held.
    """

    def __init__(self, model: nn.Module, deviations: dict[str, torch.Tensor] | None = None) -> None:
        self.deviations = {} if deviations is None else deviations
        self._known = deviations is not None
        self._seen: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}
        for name, module in model.named_modules():
            if isinstance(module, nn.BatchNorm2d):
                module.register_forward_hook(lambda module, args, y, name=name: self._norm(name, module, args[0], y))

    def _norm(self, name: str, module: nn.BatchNorm2d, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor | None:
        if name not in self._seen:
            self._seen[name] = x.detach().clone(), y.detach().clone()
            if not self._known:
                self.deviations[name] = (x.detach().var(dim=(0, 2, 3), unbiased=False) + module.eps).sqrt()
            return None
        x0, y0 = self._seen[name]
        return y0 + (module.weight.detach() / self.deviations[name])[:, None, None] * (x - x0)


def slow_total(model: nn.Module, tap: str, x: torch.Tensor, deviations: dict[str, torch.Tensor] | None) -> Any:
    """A function of the activation and its sensitivity, by first derivatives alone; and the deviations held."""
    model = copy.deepcopy(model)
    recorded = Recorded(model, deviations)
    with torch.no_grad():
        activation = forward_with_taps(model, (Tap(tap),), x).activation
    leaf = activation.clone().requires_grad_(True)
    logits = head_from_tap(model, tap, x)(leaf)
    (gradient,) = torch.autograd.grad(logits[:, 0].sum(), leaf)
    return float(of_both(gradient, activation)), recorded.deviations


def of_both(gradient: torch.Tensor, activation: torch.Tensor) -> torch.Tensor:
    return torch.relu((gradient.sum((2, 3), keepdim=True) * activation).sum(1)).square().sum() * 1e3


@pytest.mark.parametrize("training", [True, False], ids=["batch", "running"])
@pytest.mark.parametrize(("name", "tap"), NETWORKS)
def test_whole_networks_behave_as_finite_steps_of_every_parameter_say(name: str, tap: str, training: bool) -> None:
    case = CASES[name]
    model = case.make().double().requires_grad_(True).train(training)
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 0.0
    x = case.images(4).double()
    seen = forward_with_taps(model, (Tap(tap),), x, beyond=differentiable_twice)
    (gradient,) = torch.autograd.grad(seen.logits[:, 0].sum(), seen.activation, create_graph=True)
    total = of_both(gradient, seen.activation)
    model.zero_grad()
    total.backward()  # type: ignore[no-untyped-call]
    stored = {
        name: (module.running_var + module.eps).sqrt()
        for name, module in model.named_modules()
        if isinstance(module, nn.BatchNorm2d)
    }
    expected, deviations = slow_total(model, tap, x, None if training else stored)
    # Torch's hardsigmoid has a sixth in single precision for its slope.
    assert float(total.detach()) == pytest.approx(expected, rel=1e-8)
    source = torch.Generator().manual_seed(3)
    for parameter in model.parameters():
        direction = torch.randn(parameter.shape, generator=source, dtype=DTYPE)
        # Short enough to flip no ReLU, where the sensitivity jumps.
        direction *= 1e-8 / direction.norm()
        sides = []
        for step in (1, -2):
            parameter.data += step * direction
            sides.append(slow_total(model, tap, x, deviations)[0])
        parameter.data += direction
        found = 0.0 if parameter.grad is None else float((parameter.grad * direction).sum())
        assert found == pytest.approx((sides[0] - sides[1]) / 2, rel=1e-3, abs=1e-12 * max(1.0, expected))


class Masks(TorchDispatchMode):
    """Which gradients of convolutions are computed: of the input, the weight, the bias."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[list[bool]] = []

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function is torch.ops.aten.convolution_backward.default:
            self.seen.append(args[-1])
        return function(*args, **(kwargs or {}))


def test_a_sensitivity_computes_no_gradient_of_weights() -> None:
    x, module = features(), drawn(nn.Sequential(nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 3)))
    with differentiable_twice():
        y = module(x).square().sum()
    with Masks() as first:
        (gradient,) = torch.autograd.grad(y, x, create_graph=True)
    assert first.seen == [[True, False, False]] * 2
    # For each convolution one where its gradient is differentiated, and one on the answer's own way back.
    with Masks() as second:
        (gradient.square().sum() + y).backward()  # type: ignore[no-untyped-call]
    assert sum(mask[1] for mask in second.seen) == 4
    assert all(parameter.grad is not None for parameter in module.parameters())


def test_what_is_left_to_torch() -> None:
    def node(module: nn.Module, x: torch.Tensor) -> str:
        with differentiable_twice():
            return type(module(x).grad_fn).__name__

    convolution, norm = nn.Conv2d(4, 4, 3).to(DTYPE), nn.BatchNorm2d(4).to(DTYPE)
    assert node(convolution, features()) == "_ConvolutionBackward"
    assert node(norm, features()) == "_BatchNormBackward"
    assert node(nn.Conv2d(4, 4, 3, padding="same").to(DTYPE), features()) == "ConvolutionBackward0"
    assert node(convolution, features().detach()) == "ConvolutionBackward0"
    with torch.no_grad():
        assert node(convolution, features()) == "NoneType"
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert node(convolution.float(), features().float()) == "ConvolutionBackward0"
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        node(norm, features(shape=(1, 4, 1, 1)))


def test_context_begins_behind_the_tap_and_ends_with_the_pass() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.Flatten(), nn.Linear(16, 2))
    nodes: list[str] = []
    for layer in (model[0], model[2]):
        layer.register_forward_hook(lambda _module, _inputs, output: nodes.append(type(output.grad_fn).__name__))
    forward_with_taps(model, (Tap("1"),), torch.randn(2, 3, 6, 6), beyond=differentiable_twice)
    assert nodes == ["ConvolutionBackward0", "_ConvolutionBackward"]
    model(torch.randn(2, 3, 6, 6))
    assert nodes[2:] == ["ConvolutionBackward0"] * 2


@pytest.mark.parametrize("inplace", [False, True])
def test_hard_sigmoid_has_a_second_derivative(inplace: bool) -> None:
    x = (features() * 3).detach().requires_grad_(True)

    def called(x: torch.Tensor) -> torch.Tensor:
        with differentiable_twice():
            return nn.functional.hardsigmoid(x * 1, inplace=inplace)

    torch.testing.assert_close(called(x), nn.functional.hardsigmoid(x), rtol=1e-14, atol=1e-16)
    assert torch.autograd.gradcheck(called, (x,))
    assert torch.autograd.gradgradcheck(called, (x,))


def test_attention_has_a_second_derivative() -> None:
    def called(x: torch.Tensor) -> torch.Tensor:
        with differentiable_twice():
            return nn.functional.scaled_dot_product_attention(x, x.sin(), x.cos())

    x = features(shape=(2, 1, 3, 4))
    expected = torch.softmax(x @ x.sin().transpose(-2, -1) / 2, dim=-1) @ x.cos()
    torch.testing.assert_close(called(x), expected)
    assert torch.autograd.gradgradcheck(called, (x,))


def test_half_precision_keeps_its_type() -> None:
    module = nn.Sequential(nn.Conv2d(4, 4, 3, bias=False), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 3), nn.Flatten())
    x = features().detach().float().requires_grad_(True)
    with torch.autocast("cpu", dtype=torch.bfloat16), differentiable_twice():
        y = module(x)
        (gradient,) = torch.autograd.grad(y.float().square().sum(), x, create_graph=True)
        gradient.square().sum().backward()  # type: ignore[no-untyped-call]
    assert y.dtype == torch.bfloat16
    assert gradient.dtype == torch.float32
    assert all(parameter.grad is not None for parameter in (module[0].weight, module[1].weight, module[2].weight))
