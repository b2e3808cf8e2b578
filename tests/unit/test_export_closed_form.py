"""The map without gradients: chosen for pooling and one linear layer, and for nothing that merely looks like it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from networks import made
from torch import nn
from torch.nn import functional

from edgekit.attribution.spec import NO_CLASS
from edgekit.errors import DefectError
from edgekit.export import closed_form as module
from edgekit.export.closed_form import closed_form, pooled_linear_weight
from edgekit.teacher.explain import Explainer, explain
from edgekit.teacher.methods.grad_cam import GRAD_CAM
from edgekit.teacher.methods.registry import METHODS
from edgekit.teacher.tap import Tap, forward_with_tap, head_from_tap

CHANNELS, CLASSES, SIDE = 6, 4, (5, 7)
Forward = Callable[["Head", torch.Tensor, torch.Tensor], torch.Tensor]


class Head(nn.Module):
    """A convolution to tap, and whatever follows it."""

    def __init__(self, forward: Forward, bias: bool = True) -> None:
        super().__init__()
        self.tap = nn.Conv2d(3, CHANNELS, 3, padding=1)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(CHANNELS, CLASSES, bias=bias)
        self.other = nn.Linear(CLASSES, CLASSES)
        self.square = nn.Linear(CHANNELS, CHANNELS)
        self.flat = nn.Linear(CHANNELS * SIDE[0] * SIDE[1], CLASSES)
        self.conv = nn.Conv2d(CHANNELS, CLASSES, 1)
        self.matrix = nn.Parameter(torch.randn(CHANNELS, CLASSES))
        self.norm = nn.BatchNorm1d(CHANNELS)
        self.dropout = nn.Dropout(0.5)
        self._behind = forward

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self._behind(self, self.tap(x), x)


def weight_found(model: nn.Module) -> torch.Tensor | None:
    images = torch.randn(2, 3, *SIDE, generator=torch.Generator().manual_seed(0))
    activation = forward_with_tap(model, "tap", images).activation
    return pooled_linear_weight(head_from_tap(model, "tap", images), activation)


PROVABLE: dict[str, Forward] = {
    "adaptive pool, flatten": lambda m, a, x: m.fc(torch.flatten(m.pool(a), 1)),
    "adaptive pool of a pair": lambda m, a, x: m.fc(functional.adaptive_avg_pool2d(a, (1, 1)).flatten(1)),
    "mean": lambda m, a, x: m.fc(a.mean((2, 3))),
    "mean, other order": lambda m, a, x: m.fc(a.mean((3, 2))),
    "mean, negative": lambda m, a, x: m.fc(a.mean([-1, -2])),
    "mean kept, view": lambda m, a, x: m.fc(a.mean((2, 3), keepdim=True).view(a.shape[0], CHANNELS)),
    "mean kept, reshape": lambda m, a, x: m.fc(a.mean((2, 3), keepdim=True).reshape(-1, CHANNELS)),
    "dropout in evaluation": lambda m, a, x: m.fc(m.dropout(torch.flatten(m.pool(m.dropout(a)), 1))),
    "matrix product": lambda m, a, x: a.mean((2, 3)) @ m.fc.weight.t(),
    "matrix kept the other way": lambda m, a, x: a.mean((2, 3)) @ m.matrix,
    "a copy in between": lambda m, a, x: m.fc(a.clone().mean((2, 3)).clone()),
    "identity in between": lambda m, a, x: m.fc(nn.Identity()(a.mean((2, 3)))),
}

NOT_PROVABLE: dict[str, Forward] = {
    "flattened": lambda m, a, x: m.flat(a.flatten(1)),
    "two linear layers": lambda m, a, x: m.other(m.fc(a.mean((2, 3)))),
    "square layer in between": lambda m, a, x: m.fc(m.square(a.mean((2, 3)))),
    "ReLU behind the pooling": lambda m, a, x: m.fc(a.mean((2, 3)).relu()),
    "ReLU in front of the pooling": lambda m, a, x: m.fc(a.relu().mean((2, 3))),
    "ReLU in place in front of it": lambda m, a, x: m.fc(functional.relu(a, inplace=True).mean((2, 3))),
    "maximum": lambda m, a, x: m.fc(a.amax((2, 3))),
    "max pooling": lambda m, a, x: m.fc(functional.adaptive_max_pool2d(a, 1).flatten(1)),
    "sum": lambda m, a, x: m.fc(a.sum((2, 3))),
    "mean over the rows alone": lambda m, a, x: m.fc(a.mean(2).amax(2)),
    "two means": lambda m, a, x: m.fc(a.mean(2).mean(2)),
    "mean and maximum": lambda m, a, x: m.fc(a.mean((2, 3)) + a.amax((2, 3))),
    "used twice": lambda m, a, x: m.fc(a.mean((2, 3))) + a.mean((1, 2, 3))[:, None],
    "pooled twice": lambda m, a, x: m.fc(a.mean((2, 3)) + a.mean((2, 3))),
    "scaled by the input": lambda m, a, x: m.fc(a.mean((2, 3)) * x.mean((1, 2, 3))[:, None]),
    "scaled by itself": lambda m, a, x: m.fc(a.mean((2, 3)) * a.mean((2, 3))),
    "scaled": lambda m, a, x: m.fc(a.mean((2, 3)) * 2),
    "input added": lambda m, a, x: m.fc(a.mean((2, 3))) + x.mean((1, 2, 3))[:, None],
    "input added in front": lambda m, a, x: m.fc(a.mean((2, 3)) + x.mean((1, 2, 3))[:, None]),
    "temperature": lambda m, a, x: m.fc(a.mean((2, 3))) / 3,
    "softmax": lambda m, a, x: m.fc(a.mean((2, 3))).softmax(1),
    "sigmoid": lambda m, a, x: m.fc(a.mean((2, 3))).sigmoid(),
    "normalised": lambda m, a, x: m.fc(functional.normalize(a.mean((2, 3)))),
    "batch norm in between": lambda m, a, x: m.fc(m.norm(a.mean((2, 3)))),
    "classes permuted": lambda m, a, x: m.fc(a.mean((2, 3))).flip(1),
    "channels permuted": lambda m, a, x: m.fc(a.mean((2, 3)).flip(1)),
    "channels and batch mixed": lambda m, a, x: m.fc(a.mean((2, 3)).t().reshape(-1, CHANNELS)),
    "batch turned round": lambda m, a, x: m.fc(a.mean((2, 3)).flip(0)),
    "convolution as classifier": lambda m, a, x: m.conv(m.pool(a)).flatten(1),
    "classifier in front of the pooling": lambda m, a, x: m.conv(a).mean((2, 3)),
    "pooled in two steps": lambda m, a, x: m.fc(functional.avg_pool2d(a, (5, 1)).mean((2, 3))),
    "only a part of the map": lambda m, a, x: m.fc(a[:, :, 1:].mean((2, 3))),
    "padded": lambda m, a, x: m.fc(functional.pad(a, (1, 1, 1, 1)).mean((2, 3))),
    "weight from the input": lambda m, a, x: functional.linear(a.mean((2, 3)), m.fc.weight * (2 + x.mean())),
    "weight from the activation": lambda m, a, x: a.mean((2, 3)) @ a.mean((2, 3)).t() @ m.fc.weight[:, :2].t(),
}


@pytest.mark.parametrize("form", PROVABLE.values(), ids=PROVABLE)
@pytest.mark.parametrize("bias", [True, False])
def test_chosen_where_it_is_provable(form: Forward, bias: bool) -> None:
    model = made(lambda: Head(form, bias))
    weight = weight_found(model)
    assert weight is not None
    # The gradient of the pooled features is what the weight has to be.
    features = torch.zeros(1, CHANNELS, *SIDE, requires_grad=True)
    logits = model._behind(model, features + 0, torch.zeros(1, 3, *SIDE))
    rows = [
        torch.autograd.grad(logits[0, row], features, retain_graph=True)[0].sum((2, 3))[0] for row in range(CLASSES)
    ]
    assert torch.allclose(weight, torch.stack(rows), atol=1e-6)
    assert not weight.requires_grad


@pytest.mark.parametrize("form", NOT_PROVABLE.values(), ids=NOT_PROVABLE)
def test_not_chosen_for_anything_else(form: Forward) -> None:
    assert weight_found(made(lambda: Head(form))) is None


@pytest.mark.parametrize("form", PROVABLE.values(), ids=PROVABLE)
def test_the_closed_form_is_the_gradients(form: Forward) -> None:
    model = made(lambda: Head(form)).double()
    images = torch.randn(8, 3, *SIDE, generator=torch.Generator().manual_seed(1)).double()
    head, activation = head_from_tap(model, "tap", images), forward_with_tap(model, "tap", images).activation
    closed = closed_form(GRAD_CAM, head, activation)
    assert closed is not None
    asked = torch.tensor([-1, 0, 1, 2, 3, -1, 0, 1], dtype=torch.int32)
    expected = explain(model, "tap", GRAD_CAM, images, asked)
    found = Explainer(GRAD_CAM, (Tap("tap"),), differentiate=(closed,))(model, images, asked)
    assert torch.equal(found.logits, expected.logits)
    assert torch.allclose(found.attribution, expected.attribution, rtol=1e-10, atol=1e-14)
    assert expected.attribution.max() > 0


def test_dropout_in_training_is_not_pooling_and_a_layer() -> None:
    model = made(lambda: Head(lambda m, a, x: m.fc(m.dropout(a.mean((2, 3))))))
    assert weight_found(model) is not None
    assert weight_found(model.train()) is None


def test_a_head_that_cannot_be_traced_keeps_the_gradient() -> None:
    assert weight_found(made(lambda: Head(lambda m, a, x: m.fc(a.mean((2, 3))) * (1 if a.sum() > 0 else 2)))) is None


@pytest.mark.parametrize("name", [name for name in METHODS.names() if METHODS.load(name).domain == "tap"])
def test_the_closed_form_serves_every_method(name: str) -> None:
    model, method = made(lambda: Head(PROVABLE["mean"])).double(), METHODS.load(name)
    images = torch.randn(6, 3, *SIDE, generator=torch.Generator().manual_seed(2)).double()
    head, activation = head_from_tap(model, "tap", images), forward_with_tap(model, "tap", images).activation
    closed = closed_form(method, head, activation)
    assert closed is not None
    asked = torch.tensor([[-1, 0], [0, 1], [1, -1], [2, 2], [3, NO_CLASS], [NO_CLASS, 0]], dtype=torch.int32)
    expected = Explainer(method, (Tap("tap"),))(model, images, asked).attribution
    found = Explainer(method, (Tap("tap"),), differentiate=(closed,))(model, images, asked).attribution
    assert torch.allclose(found, expected, rtol=1e-9, atol=1e-13)
    assert expected.max() > 0
    assert found[4, 1].abs().max() == found[5, 0].abs().max() == 0, "no class, no map"


def test_a_wrong_proof_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    model = made(lambda: Head(PROVABLE["mean"]))
    images = torch.randn(4, 3, *SIDE, generator=torch.Generator().manual_seed(0))
    head, activation = head_from_tap(model, "tap", images), forward_with_tap(model, "tap", images).activation
    for wrong in (model.fc.weight.flip(0), model.fc.weight.flip(1), -model.fc.weight, model.fc.weight * 1.01):
        monkeypatch.setattr(module, "pooled_linear_weight", lambda *_, found=wrong: found)
        with pytest.raises(DefectError, match="differs from its gradient"):
            closed_form(GRAD_CAM, head, activation)
