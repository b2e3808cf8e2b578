"""Maps in other layouts: in and out again, found without help, recorded, and explained as a slow cut-out says."""

from __future__ import annotations

import copy

import pytest
import torch
from exported import OPSET
from hypothesis import given
from hypothesis import strategies as st
from networks import LAYOUT_CASES, Attention, LayoutCase, Tokens, TwoTowers, made
from torch import nn

from edgekit.attribution.spec import LAYOUTS, MapSpec
from edgekit.calibrate.graph import read_graph
from edgekit.errors import BadInputError
from edgekit.export.explained import explained_onnx
from edgekit.interface.card import InputSpec, ModelCard
from edgekit.teacher.checkpoint import LoadedModel
from edgekit.teacher.discovery import find_tap, resolve_tap, resolve_taps, tap_candidates
from edgekit.teacher.explain import Explainer, explain, map_spec
from edgekit.teacher.layouts import Layout
from edgekit.teacher.methods.grad_cam import GRAD_CAM
from edgekit.teacher.options import MapOptions
from edgekit.teacher.tap import Tap, forward_with_tap, head_from_tap, tap_from_spec

CASE_NAMES = list(LAYOUT_CASES)
PERMUTED = {
    "nchw": lambda output, layout: output,
    "nhwc": lambda output, layout: output.movedim(3, 1),
    # Cell (i, j) is token prefix + i * width + j.
    "tokens": lambda output, layout: torch.stack(
        [
            torch.stack([output[:, layout.prefix_tokens + i * layout.width + j] for j in range(layout.width)], dim=2)
            for i in range(layout.height)
        ],
        dim=2,
    ),
}


def test_every_layout_is_looked_at() -> None:
    assert set(PERMUTED) == set(LAYOUTS)


@given(
    kind=st.sampled_from(LAYOUTS),
    height=st.integers(1, 4),
    width=st.integers(1, 4),
    prefix=st.integers(0, 3),
    channels=st.integers(1, 3),
)
def test_in_and_out_again(kind: str, height: int, width: int, prefix: int, channels: int) -> None:
    layout = Layout(kind, height, width, prefix if kind == "tokens" else 0)
    shape = {
        "nchw": (2, channels, height, width),
        "nhwc": (2, height, width, channels),
        "tokens": (2, prefix + height * width, channels),
    }[kind]
    output = torch.arange(torch.Size(shape).numel(), dtype=torch.float32).reshape(shape)
    found = layout.to_map(output)
    assert found.shape == (2, channels, height, width)
    assert torch.equal(found, PERMUTED[kind](output, layout))
    assert torch.equal(layout.from_map(found, output), output)
    # What is not a cell stays the network's own.
    changed = layout.from_map(found + 1, output)
    assert torch.equal(layout.to_map(changed), found + 1)
    if kind == "tokens":
        assert torch.equal(changed[:, :prefix], output[:, :prefix])


@pytest.mark.parametrize(
    ("layout", "shape"),
    [
        (Layout(), (2, 3, 4)),
        (Layout("nhwc"), (2, 3, 4)),
        (Layout("tokens", 2, 2), (2, 3, 2, 2)),
        (Layout("tokens", 2, 2, 1), (2, 4, 7)),
        (Layout("tokens", 2, 3), (2, 5, 6)),
    ],
)
def test_another_shape_is_refused(layout: Layout, shape: tuple[int, ...]) -> None:
    with pytest.raises(BadInputError, match="does not hold a map") as caught:
        layout.to_map(torch.zeros(shape))
    assert str(list(shape)) in (caught.value.found or "")


@pytest.mark.parametrize("name", CASE_NAMES)
class TestEveryLayoutCase:
    def test_the_tap_is_found_with_its_layout(self, name: str) -> None:
        case = LAYOUT_CASES[name]
        tap = find_tap(case.make(), case.images(2))
        assert (tap.name, tap.layout.kind, tap.layout.prefix_tokens) == (case.found, case.kind, case.prefix)
        assert forward_with_tap(case.make(), tap, case.images(2)).activation.shape[2:] == case.map_size

    def test_the_reshape_is_recorded_and_enough_to_find_the_tap_again(self, name: str) -> None:
        case = LAYOUT_CASES[name]
        tap = find_tap(case.make(), case.images(2))
        spec = map_spec(Explainer(GRAD_CAM, (tap,)), case.make(), case.images(2))
        stored = MapSpec.from_dict(spec.to_dict(), where="test")
        assert stored == spec
        assert tap_from_spec(stored.taps[0]) == tap

    def test_body_and_head_are_the_network(self, name: str) -> None:
        case = LAYOUT_CASES[name]
        model, images = case.make(), case.images(3)
        tap = find_tap(model, images)
        tapped = forward_with_tap(model, tap, images)
        assert torch.equal(tapped.logits, model(images))
        assert torch.equal(head_from_tap(model, tap, images)(tapped.activation), tapped.logits)

    def test_gradients_reach_the_activation_and_go_through(self, name: str) -> None:
        case = LAYOUT_CASES[name]
        model, images = case.make().requires_grad_(True), case.images(2)
        tapped = forward_with_tap(model, find_tap(model, images), images)
        (there,) = torch.autograd.grad(tapped.logits[:, 0].sum(), tapped.activation, retain_graph=True)
        assert there.abs().sum() > 0
        tapped.logits.sum().backward()
        assert model.embed.weight.grad.abs().sum() > 0

    def test_grad_cam_is_that_of_the_module_itself(self, name: str) -> None:
        """Backpropagation to the raw output, then a loop over the cells with the arithmetic of the definition."""
        case = LAYOUT_CASES[name]
        model, images = copy.deepcopy(case.make()).double(), case.images(3).double()
        found = explain(model, find_tap(model, images), GRAD_CAM, images, torch.tensor([0, 1, 2], dtype=torch.int32))
        for sample in range(3):
            expected = slow_grad_cam(model, case, images[sample : sample + 1], sample)
            torch.testing.assert_close(found.attribution[sample], expected, rtol=1e-9, atol=1e-14)
        assert found.attribution.max() > 0

    def test_inner_tensors_of_attention_are_no_candidates(self, name: str) -> None:
        case = LAYOUT_CASES[name]
        names = [item.tap.name for item in tap_candidates(case.make(), case.images(2))]
        assert case.found in names
        assert not any("scores" in candidate for candidate in names)

    def test_a_tap_named_is_the_tap_found(self, name: str) -> None:
        case = LAYOUT_CASES[name]
        model, images = case.make(), case.images(2)
        assert resolve_tap(model, case.found, images) == find_tap(model, images)


def slow_grad_cam(model: nn.Module, case: LayoutCase, image: torch.Tensor, chosen: int) -> torch.Tensor:
    leaves: list[torch.Tensor] = []

    def cut(_module: nn.Module, _inputs: object, output: torch.Tensor) -> torch.Tensor:
        leaves.append(output.detach().clone().requires_grad_(True))
        return leaves[0] + 0

    handle = model.get_submodule(case.found).register_forward_hook(cut)
    model(image)[0, chosen].backward()
    handle.remove()
    output, gradient = leaves[0].detach()[0], leaves[0].grad[0]
    height, width = case.map_size
    result = torch.zeros(height, width, dtype=output.dtype)

    def at(values: torch.Tensor, row: int, column: int) -> torch.Tensor:
        return values[row, column] if case.kind == "nhwc" else values[case.prefix + row * width + column]

    alpha = sum(at(gradient, row, column) for row in range(height) for column in range(width)) / (height * width)
    for row in range(height):
        for column in range(width):
            result[row, column] = max(float((alpha * at(output, row, column)).sum()), 0.0)
    return result


@pytest.mark.parametrize("name", ["class-token", "windows"])
def test_the_exported_graph_says_the_same_for_any_batch(name: str, tmp_path) -> None:
    from edgekit.engines.protocol import EngineOptions
    from edgekit.engines.reference import ENGINE

    case = LAYOUT_CASES[name]
    model = case.make()
    card = ModelCard(InputSpec(*case.side), tuple("abcd"))
    explained = explained_onnx(
        LoadedModel(model, card, "networks:x", {}, None, ""), MapOptions(), use_closed_form=True, opset=OPSET
    )
    assert (explained.map_spec.layout, explained.map_spec.prefix_tokens) == (case.kind, case.prefix)
    path = tmp_path / "model.onnx"
    path.write_bytes(explained.model.SerializeToString())
    # That logits do not depend on class_index, not even on its size, is what quantisation asks.
    assert read_graph(path).batch is None
    with ENGINE.open(path, EngineOptions()) as runner:
        for batch in (1, 5):
            images = case.images(batch, seed=batch)
            asked = torch.arange(batch, dtype=torch.int32) % 4
            answer = runner.run(images.numpy(), asked.numpy())
            truth = explain(
                copy.deepcopy(model).double(), find_tap(model, case.images(2)), GRAD_CAM, images.double(), asked
            )
            scale = float(truth.attribution.max())
            assert abs(torch.from_numpy(answer.logits) - truth.logits).max() < 1e-5 * float(truth.logits.abs().max())
            assert abs(torch.from_numpy(answer.attribution) - truth.attribution).max() < 1e-5 * scale


def test_cells_behind_the_last_attention_have_no_say() -> None:
    case = LAYOUT_CASES["class-token"]
    with pytest.raises(BadInputError, match="do not depend") as caught:
        resolve_tap(case.make(), "blocks.1.norm2", case.images(2))
    assert "another token" in (caught.value.found or "")


def test_a_tap_of_the_wrong_layout_is_refused() -> None:
    case = LAYOUT_CASES["class-token"]
    with pytest.raises(BadInputError, match="cannot be the tap") as caught:
        forward_with_tap(case.make(), "blocks.1.norm1", case.images(2))
    assert "[2, 13, 8]" in (caught.value.found or "")
    with pytest.raises(BadInputError, match="cannot be the tap"):
        forward_with_tap(case.make(), Tap("blocks.1.norm1", Layout("tokens", 3, 3, 1)), case.images(2))


def test_two_taps_of_equal_merit_are_a_question() -> None:
    model, images = made(TwoTowers), torch.rand(2, 3, 8, 8)
    with pytest.raises(BadInputError, match="two feature maps of equal merit") as caught:
        find_tap(model, images)
    assert "'left.1' and 'right'" in (caught.value.found or "") or "'left' and 'right'" in (caught.value.found or "")
    assert "--tap right" in (caught.value.hint or "")
    # Naming one settles it, and so does naming both.
    assert resolve_tap(model, "left", images).name == "left"
    card = ModelCard(InputSpec(8, 8), tuple("abc"), tap="left", further_taps=("right",))
    assert [tap.name for tap in resolve_taps(model, card, images)] == ["left", "right"]


def test_a_tap_is_not_named_twice() -> None:
    model, images = made(TwoTowers), torch.rand(2, 3, 8, 8)
    card = ModelCard(InputSpec(8, 8), tuple("abc"), tap="left", further_taps=("left",))
    with pytest.raises(BadInputError, match="named twice"):
        resolve_taps(model, card, images)


def test_linear_patches_are_a_grid_too() -> None:
    """No convolution divides the image here; squares that tile it do."""

    class Unfolded(Tokens):
        def __init__(self) -> None:
            super().__init__(prefix=1)
            self.embed = nn.Linear(48, 8)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            batch = x.shape[0]
            cells = x.reshape(batch, 3, 4, 4, 3, 4).permute(0, 2, 4, 1, 3, 5).reshape(batch, 12, 48)
            x = torch.cat([self.tokens.expand(batch, -1, -1), self.embed(cells)], dim=1) + self.position
            for block in self.blocks:
                x = block(x)
            return self.head(self.norm(x)[:, 0])

    tap = find_tap(made(Unfolded), torch.rand(2, 3, 16, 12))
    assert (tap.name, tap.layout) == ("blocks.1.norm1", Layout("tokens", 4, 3, 1))


def test_attention_alone_is_not_a_map() -> None:
    """T x T scores of 16 tokens of a 16 x 16 image: as square as the image, and no map."""

    class Scores(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Conv2d(3, 8, 4, stride=4)
            self.attention = Attention(8)
            self.head = nn.Linear(8, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(self.attention(self.embed(x).flatten(2).transpose(1, 2)).mean(dim=1))

    model = made(Scores)
    names = [item.tap.name for item in tap_candidates(model, torch.rand(2, 3, 16, 16))]
    assert "attention.scores" not in names or names[-1] != "attention.scores"
    assert find_tap(model, torch.rand(2, 3, 16, 16)).name == "attention"
