"""The tap: found where maps can live, refused where they cannot, and the network is left as it was."""

from __future__ import annotations

import pytest
import torch
from networks import CASES, TAPS, DeadEnd, Perceptron, Residual, SharedConvolution, made
from torch import nn

from edgekit.errors import BadInputError
from edgekit.teacher.discovery import find_tap, resolve_tap
from edgekit.teacher.tap import forward_with_tap, head_from_tap


def hooks(model: nn.Module) -> int:
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules())


@pytest.mark.parametrize("name", CASES)
def test_the_last_spatial_map_is_found(name: str) -> None:
    case = CASES[name]
    model = case.make()
    tap = find_tap(model, case.images(2))
    assert forward_with_tap(model, tap, case.images(2)).activation.shape[2:].numel() > 1
    assert tap.name == case.found
    assert resolve_tap(model, None, case.images(2)) == tap
    assert hooks(model) == 0


@pytest.mark.parametrize(("name", "tap"), TAPS)
def test_body_and_head_are_the_network(name: str, tap: str) -> None:
    case = CASES[name]
    model, images = case.make(), case.images(3)
    logits = model(images)
    tapped = forward_with_tap(model, tap, images)
    assert torch.equal(tapped.logits, logits)
    assert torch.equal(head_from_tap(model, tap, images)(tapped.activation), logits)
    assert hooks(model) == 0


@pytest.mark.parametrize(("name", "tap"), TAPS)
def test_the_activation_is_the_modules_own_output(name: str, tap: str) -> None:
    """Also where the network goes on in place: with a ReLU, or with the addition of a shortcut."""
    case = CASES[name]
    model, images = case.make(), case.images(2)
    expected: list[torch.Tensor] = []
    handle = model.get_submodule(tap).register_forward_hook(lambda *call: expected.append(call[-1].clone()))
    model(images)
    handle.remove()
    tapped = forward_with_tap(model, tap, images)
    assert torch.equal(tapped.activation, expected[0])
    head_from_tap(model, tap, images)(tapped.activation)
    assert torch.equal(tapped.activation, expected[0]), "the head changed what it was given"


def test_some_taps_are_followed_by_work_in_place() -> None:
    """What the test above is about does occur in these networks."""
    model, images = CASES["vgg"].make(), CASES["vgg"].images(2)
    activation = forward_with_tap(model, "features.1", images).activation
    assert (activation < 0).any(), "a batch norm's output; a ReLU in place follows"


def test_gradients_flow_through_the_tap_as_in_a_plain_pass() -> None:
    case = CASES["residual"]
    model, images = case.make(), case.images(2)
    model.requires_grad_(True)
    tapped = forward_with_tap(model, "layer1", images)
    (through_tap,) = torch.autograd.grad(tapped.logits[:, 1].sum(), tapped.activation, retain_graph=True)
    assert through_tap.abs().sum() > 0
    tapped.logits[:, 1].sum().backward()
    found = model.conv1.weight.grad.clone()
    model.zero_grad()
    model(images)[:, 1].sum().backward()
    assert torch.equal(found, model.conv1.weight.grad)


def test_the_head_is_right_for_wiring_around_the_tap() -> None:
    """`project` is only one of the two summands behind it; the other reaches the logits past the tap."""
    case = CASES["inverted"]
    model, images = case.make(), case.images(2)
    activation = forward_with_tap(model, "project", images).activation
    moved = head_from_tap(model, "project", images)(activation + 0.5)
    x = model.stem(images)
    expected = model.classifier(model.last(x + model.project(model.depthwise(model.expand(x))) + 0.5).mean((2, 3)))
    assert torch.allclose(moved, expected, atol=1e-6)


def test_a_network_without_maps_is_refused() -> None:
    model = made(Perceptron)
    images = torch.zeros(2, 3, 8, 8)
    for attempt in (find_tap, lambda model, images: resolve_tap(model, None, images)):
        with pytest.raises(BadInputError, match="no spatial feature map") as caught:
            attempt(model, images)
        assert caught.value.hint is not None
    assert hooks(model) == 0


def test_a_map_of_one_cell_is_none() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 8), nn.Flatten(), nn.Linear(4, 2))
    with pytest.raises(BadInputError, match="no spatial feature map"):
        find_tap(model, torch.zeros(2, 3, 8, 8))


def test_a_module_that_runs_twice_is_neither_found_nor_accepted() -> None:
    model, images = made(SharedConvolution), torch.zeros(2, 3, 8, 8)
    assert find_tap(model, images).name == "last"
    for attempt in (forward_with_tap, resolve_tap):
        with pytest.raises(BadInputError, match="cannot be the tap") as caught:
            attempt(model, "conv", images)
        assert caught.value.found == "2 calls"
        assert "--tap" in (caught.value.hint or "")


@pytest.mark.parametrize(
    ("tap", "found"), [("fc", "an output of shape [2, 5]"), ("layer1.relu", "2 calls"), ("layer2.downsample", None)]
)
def test_modules_of_other_kinds(tap: str, found: str | None) -> None:
    model, images = made(Residual), torch.rand(2, 3, 17, 15)
    if found is None:
        assert resolve_tap(model, tap, images).name == tap
        return
    with pytest.raises(BadInputError, match="cannot be the tap") as caught:
        forward_with_tap(model, tap, images)
    assert caught.value.found == found


class _ReturnsPair(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.pair = nn.LSTM(8, 4, batch_first=True)
        self.fc = nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.pair(x.mean(1))[0].mean(1))


def test_a_module_that_puts_out_several_things() -> None:
    with pytest.raises(BadInputError) as caught:
        forward_with_tap(made(_ReturnsPair), "pair", torch.zeros(2, 3, 5, 8))
    assert caught.value.found == "an output of type tuple"


def test_a_module_that_is_never_called() -> None:
    model = made(Residual)
    model.spare = nn.Conv2d(3, 3, 1)
    with pytest.raises(BadInputError) as caught:
        forward_with_tap(model, "spare", torch.zeros(2, 3, 17, 15))
    assert caught.value.found == "0 calls"


@pytest.mark.parametrize("tap", ["layer9", "layer1.conv9", "", " "])
def test_a_module_that_does_not_exist(tap: str) -> None:
    model, images = made(Residual), torch.rand(2, 3, 17, 15)
    with pytest.raises(BadInputError):
        forward_with_tap(model, tap, images)
    if tap.strip():
        with pytest.raises(BadInputError, match="no module") as caught:
            resolve_tap(model, tap, images)
        assert "fc" in (caught.value.expected or "")


def test_a_module_the_answer_does_not_depend_on() -> None:
    model, images = made(DeadEnd), torch.rand(2, 3, 8, 8)
    with pytest.raises(BadInputError, match="do not depend on the output of 'unused'") as caught:
        resolve_tap(model, "unused", images)
    assert "--tap" in (caught.value.hint or "")
    assert resolve_tap(model, "features", images).name == "features"


class _Fails(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Conv2d(3, 4, 3)
        self.fc = nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.features(x)
        raise RuntimeError("out of luck")


def test_hooks_are_removed_when_the_network_fails() -> None:
    model, images = made(_Fails), torch.zeros(2, 3, 8, 8)
    for attempt in (
        lambda: forward_with_tap(model, "features", images),
        lambda: head_from_tap(model, "features", images)(torch.zeros(2, 4, 6, 6)),
        lambda: find_tap(model, images),
        lambda: resolve_tap(model, "features", images),
    ):
        with pytest.raises(RuntimeError, match="out of luck"):
            attempt()
        assert hooks(model) == 0


def test_hooks_of_others_stay() -> None:
    model = made(Residual)
    mine = model.layer1.register_forward_hook(lambda *_: None)
    resolve_tap(model, None, torch.rand(2, 3, 17, 15))
    assert hooks(model) == 1
    mine.remove()
