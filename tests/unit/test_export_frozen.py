"""Nothing random and nothing learnt in a graph, and fake quantisation that lets its gradient through."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from exported import OPSET, loaded
from networks import CASES, Case, made
from torch import nn
from torch.ao.quantization import FakeQuantize, MovingAverageMinMaxObserver, MovingAveragePerChannelMinMaxObserver
from torch.nn import functional

from edgekit.errors import BadInputError
from edgekit.export.explained import cleaned_onnx, explained_onnx
from edgekit.export.parity import measure_parity
from edgekit.export.trace import trace
from edgekit.teacher.explain import Explainer
from edgekit.teacher.methods.grad_cam import GRAD_CAM
from edgekit.teacher.options import MapOptions
from edgekit.teacher.tap import Tap

SIDE = (10, 12)


class Network(nn.Module):
    """A convolution to tap, something, and a classifier of the flattened map."""

    def __init__(self, behind: Callable[[torch.Tensor], torch.Tensor] | nn.Module) -> None:
        super().__init__()
        self.tap = nn.Conv2d(3, 4, 3, stride=2, padding=1)
        self.behind = behind
        self.fc = nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.behind(self.tap(x))
        return self.fc((x * x).mean((2, 3)))


def graph_error(model: nn.Module, path: Path, images: torch.Tensor) -> float:
    """Largest relative error of logits and maps of the exported graph, against float64 torch."""
    case = Case("case", lambda: model, SIDE, {"tap": "traced gradient"}, "tap")
    explained = explained_onnx(loaded(case, "tap", model), MapOptions(), use_closed_form=False, opset=OPSET)
    cleaned, reports = cleaned_onnx(explained, lambda _model: None)
    assert not [report for report in reports if report.rolled_back]
    path.write_bytes(cleaned.model.SerializeToString())
    parity = measure_parity(model, Explainer(GRAD_CAM, (Tap("tap"),)), path, images.numpy())
    return max(parity.logits, parity.attribution)


def images(count: int = 16, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, 3, *SIDE, generator=torch.Generator().manual_seed(seed))


FORBIDDEN: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "dropout": lambda x: functional.dropout(x, 0.5, training=True),
    "dropout in place": lambda x: functional.dropout(x.clone(), 0.5, training=True, inplace=True),
    "channel dropout": lambda x: functional.dropout2d(x, 0.5, training=True),
    "alpha dropout": lambda x: functional.alpha_dropout(x, 0.5, training=True),
    "noise": lambda x: x + torch.randn_like(x),
    "uniform noise": lambda x: x + torch.rand(x.shape),
    "bernoulli": lambda x: x * torch.bernoulli(torch.full_like(x, 0.5)),
    "batch statistics": lambda x: functional.batch_norm(x, None, None, training=True),
    "running statistics": lambda x: functional.batch_norm(x, torch.zeros(4), torch.ones(4), training=True),
}


@pytest.mark.parametrize("behind", FORBIDDEN.values(), ids=FORBIDDEN)
def test_what_is_random_or_learns_is_refused(behind: Callable[[torch.Tensor], torch.Tensor]) -> None:
    model = made(lambda: Network(behind))
    with pytest.raises(BadInputError, match="even in evaluation mode"):
        trace(model, (images(2),), model)


def test_the_module_that_is_random_is_named() -> None:
    class Noisy(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return functional.dropout(x, training=True)

    model = made(lambda: Network(nn.Sequential(nn.ReLU(), Noisy())))
    with pytest.raises(BadInputError) as caught:
        trace(model, (images(2),), model)
    assert caught.value.where == "behind.1"
    assert "training=self.training" in str(caught.value.hint)


def test_no_dropout_and_frozen_statistics_pass() -> None:
    for behind in (
        lambda x: functional.dropout(x, 0.5, training=False),
        lambda x: functional.dropout(x, 0.0, training=False),
        lambda x: functional.batch_norm(x, torch.zeros(4), torch.ones(4)),
    ):
        model = made(lambda behind=behind: Network(behind))
        trace(model, (images(2),), model)


@pytest.mark.parametrize("name", ["inverted", "dense"])
def test_a_network_in_training_mode_is_exported_in_evaluation_mode(name: str) -> None:
    case = CASES[name]
    evaluated, trained = case.make(), case.make().train()
    modes = [module.training for module in trained.modules()]
    graphs = [trace(lambda x, model=model: model(x), (case.images(2),), model).code for model in (evaluated, trained)]
    assert graphs[0] == graphs[1]
    assert [module.training for module in trained.modules()] == modes


class Rounded(torch.autograd.Function):
    """Rounds, and passes the gradient where the value lies between -1 and 1."""

    @staticmethod
    def forward(x: torch.Tensor) -> torch.Tensor:
        return torch.round(x * 8) / 8

    @staticmethod
    def setup_context(ctx: torch.autograd.function.FunctionCtx, inputs: tuple[torch.Tensor], output: object) -> None:
        ctx.save_for_backward(inputs[0])

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, gradient: torch.Tensor) -> torch.Tensor:
        (x,) = ctx.saved_tensors  # type: ignore[attr-defined]
        return gradient * (x.abs() <= 1).to(gradient.dtype)


def scales(*values: float) -> torch.Tensor:
    return torch.tensor(values)


QUANTISED: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "per tensor": lambda x: torch.fake_quantize_per_tensor_affine(x, 0.0071, 3, -128, 127),
    "unsigned": lambda x: torch.fake_quantize_per_tensor_affine(x, 0.0071, 120, 0, 255),
    "four bits": lambda x: torch.fake_quantize_per_tensor_affine(x, 0.11, 0, -8, 7),
    "of tensors": lambda x: torch.fake_quantize_per_tensor_affine(
        x, scales(0.0071)[0], torch.zeros(1, dtype=torch.int32)[0], -128, 127
    ),
    "per channel": lambda x: torch.fake_quantize_per_channel_affine(
        x, scales(0.007, 0.003, 0.01, 0.02), torch.tensor([0, 5, -9, 1], dtype=torch.int32), 1, -128, 127
    ),
    "function": Rounded.apply,
    "by hand": lambda x: x + (torch.round(x.clamp(-1, 1) * 10) / 10 - x).detach(),
}


@pytest.mark.parametrize("layer", QUANTISED.values(), ids=QUANTISED)
def test_the_gradient_goes_straight_through_inside_the_range_and_nowhere_else(
    layer: Callable[[torch.Tensor], torch.Tensor],
) -> None:
    """The traced graph against autograd itself, on values inside and outside, and on the halves between two steps."""
    x = torch.randn(2, 4, 5, 5, generator=torch.Generator().manual_seed(0)) * 1.5
    x.view(-1)[:40] = torch.arange(-20, 20) * 0.00355
    x.requires_grad_(True)
    expected = layer(x)
    cotangent = torch.randn(expected.shape, generator=torch.Generator().manual_seed(1))
    (gradient,) = torch.autograd.grad(expected, x, cotangent)

    def both(inputs: torch.Tensor, pulled: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        value, pullback = torch.func.vjp(layer, inputs)
        return value, pullback(pulled)[0]

    graph = trace(both, (x.detach(), cotangent))
    assert not [node for node in graph.graph.nodes if "fake_quantize" in str(node.target)]
    found, found_gradient = graph(x.detach(), cotangent)
    torch.testing.assert_close(found, expected.detach(), rtol=1e-6, atol=1e-7)
    assert torch.equal(found_gradient, gradient)
    assert found_gradient.any()


def frozen_fake_quantise(per_channel: bool, *, enabled: bool = True) -> FakeQuantize:
    observer = MovingAveragePerChannelMinMaxObserver if per_channel else MovingAverageMinMaxObserver
    options = {"ch_axis": 1, "qscheme": torch.per_channel_affine} if per_channel else {}
    module = FakeQuantize(observer, quant_min=0, quant_max=255, **options)
    module(torch.randn(4, 4, 5, 6, generator=torch.Generator().manual_seed(5)))
    module.disable_observer()
    if not enabled:
        module.disable_fake_quant()
    return module


@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize("enabled", [False, True])
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning", "ignore::FutureWarning")
def test_fake_quantise_modules_in_an_exported_graph(per_channel: bool, enabled: bool, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = made(lambda: Network(frozen_fake_quantise(per_channel, enabled=enabled)))
    with torch.no_grad():
        # Multiples of a step, so that float32 and float64 round alike.
        model.tap.weight.copy_(torch.round(model.tap.weight * 4) / 4)
        model.tap.bias.zero_()
    coarse = torch.round(images() * 2) / 2
    assert graph_error(model, tmp_path / "m.onnx", coarse) < 1e-5
    assert "forward" not in vars(model.behind)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning", "ignore::FutureWarning")
def test_an_observer_that_still_learns_is_refused() -> None:
    module = frozen_fake_quantise(per_channel=False)
    module.enable_observer()
    model = made(lambda: Network(module))
    with pytest.raises(BadInputError, match="still adapts") as caught:
        trace(model, (images(2),), model)
    assert caught.value.where == "behind"
