"""The built-in architectures against the weights they must carry and the definitions they claim."""

from __future__ import annotations

import io
import json
import math
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.nn import functional

from edgekit.errors import BadInputError
from edgekit.interface.card import InputSpec
from edgekit.interface.preprocess import preprocess
from edgekit.teacher.architectures.cifar_resnet import ChannelPlacement, cifar_resnet
from edgekit.teacher.architectures.registry import ARCHITECTURES
from edgekit.teacher.architectures.tf_padding import ConvBn

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"
CIFAR, CAMVID = SHARED / "cifar10" / "test.tar.gz", SHARED / "camvid-crops" / "camvid-crops.tar"
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="needs the real weights and images in ../shared/data")

# Smallest input each architecture makes sense for.
SIDES = {"cifar_resnet": 32, "mlperf_resnet8": 32, "mobilenet_v1": 96}
PUBLISHED = {
    "cifar10-resnet20": ("cifar_resnet", {"depth": 20}),
    "cifar10-resnet32": ("cifar_resnet", {"depth": 32}),
    "cifar10-resnet44": ("cifar_resnet", {"depth": 44}),
    "cifar10-resnet56": ("cifar_resnet", {"depth": 56}),
    "cifar10-resnet8-mlperf": ("mlperf_resnet8", {}),
    "person-mobilenetv1-96": ("mobilenet_v1", {}),
}


def _published(name: str) -> tuple[nn.Module, dict[str, Any]]:
    from safetensors.torch import load_file

    card = json.loads((SHARED / "models" / f"{name}.json").read_text())
    arch, arguments = PUBLISHED[name]
    model = ARCHITECTURES.load(arch)(**arguments)
    tensors = load_file(SHARED / "models" / f"{name}.safetensors")
    wanted = {key for key in model.state_dict() if not key.endswith("num_batches_tracked")}
    assert set(tensors) == wanted == set(card["tensors"])
    model.load_state_dict(tensors, strict=False)
    return model.eval(), card


def _input_spec(card: dict[str, Any]) -> InputSpec:
    entry = card["input"]
    divisor = 1.0 if entry["scale"].startswith("raw") else 255.0
    return InputSpec(*entry["shape"][1:], divisor=divisor, mean=tuple(entry["mean"]), std=tuple(entry["std"]))


def _accuracy(model: nn.Module, pixels: np.ndarray, labels: np.ndarray, spec: InputSpec) -> float:
    with torch.no_grad():
        top = [model(torch.from_numpy(preprocess(part, spec))).argmax(1).numpy() for part in np.array_split(pixels, 6)]
    return float(np.mean(np.concatenate(top) == labels))


@pytest.fixture(scope="module")
def cifar_images() -> tuple[np.ndarray, np.ndarray]:
    with tarfile.open(CIFAR) as archive:
        members = [member for member in archive if member.isfile()]
        classes = sorted({member.name.split("/")[1] for member in members})
        chosen = members[::12]
        pixels = [np.asarray(Image.open(io.BytesIO(archive.extractfile(m).read())).convert("RGB")) for m in chosen]
    return np.stack(pixels), np.array([classes.index(member.name.split("/")[1]) for member in chosen])


@needs_shared
@pytest.mark.shared_data
@pytest.mark.parametrize("name", PUBLISHED)
def test_published_weights_name_exactly_the_tensors_of_the_network(name: str) -> None:
    _published(name)


@needs_shared
@pytest.mark.shared_data
@pytest.mark.parametrize("name", ["cifar10-resnet20", "cifar10-resnet8-mlperf"])
def test_published_cifar_weights_reach_the_accuracy_of_their_card(
    name: str, cifar_images: tuple[np.ndarray, np.ndarray]
) -> None:
    model, card = _published(name)
    pixels, labels = cifar_images
    assert len(pixels) >= 500
    # Three standard errors of a share near 0.8 on 834 images.
    assert _accuracy(model, pixels, labels, _input_spec(card)) == pytest.approx(
        card["measured_top1"]["value"], abs=0.042
    )


@needs_shared
@pytest.mark.shared_data
def test_published_person_weights_reach_the_accuracy_of_their_card() -> None:
    model, card = _published("person-mobilenetv1-96")
    items = json.loads((CAMVID.parent / "labels.json").read_text())["items"][::3]
    with tarfile.open(CAMVID) as archive:
        images = [Image.open(io.BytesIO(archive.extractfile(item["image"]).read())) for item in items]
        pixels = np.stack([np.asarray(image.resize((96, 96), Image.Resampling.BILINEAR)) for image in images])
    labels = np.array([item["person"] for item in items])
    assert len(pixels) >= 500
    assert _accuracy(model, pixels, labels, _input_spec(card)) == pytest.approx(
        card["measured_top1"]["value"], abs=0.05
    )


@pytest.mark.parametrize("name", ARCHITECTURES.names())
def test_an_activation_is_never_written_over(name: str) -> None:
    """A map is computed from a tapped activation after the forward pass: it must still hold what the layer said."""
    torch.manual_seed(0)
    model = ARCHITECTURES.load(name)().eval()
    seen: list[tuple[str, torch.Tensor, torch.Tensor]] = []
    for module_name, module in model.named_modules():
        module.register_forward_hook(
            lambda _module, _inputs, output, who=module_name: seen.append((who, output, output.clone()))
        )
    with torch.no_grad():
        model(torch.rand(2, 3, SIDES[name], SIDES[name]))
    assert len(seen) > 10
    assert [who for who, output, copy in seen if not torch.equal(output, copy)] == []


@pytest.mark.parametrize("name", ARCHITECTURES.names())
def test_logits_do_not_depend_on_the_rest_of_the_batch(name: str) -> None:
    torch.manual_seed(0)
    model = ARCHITECTURES.load(name)().eval()
    images = torch.rand(3, 3, SIDES[name], SIDES[name])
    with torch.no_grad():
        together, alone = model(images), torch.cat([model(image[None]) for image in images])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("channels", "stride", "size"), [((16, 32), 2, 8), ((4, 10), 2, 7), ((3, 3), 1, 5), ((5, 8), 3, 9)]
)
def test_channel_placement_is_subsampling_and_zero_padding(channels: tuple[int, int], stride: int, size: int) -> None:
    before = (channels[1] - channels[0]) // 2
    x = torch.randn(2, channels[0], size, size)
    after = channels[1] - channels[0] - before
    expected = functional.pad(x[:, :, ::stride, ::stride], (0, 0, 0, 0, before, after))
    assert torch.equal(ChannelPlacement(*channels, stride)(x), expected)


def test_shortcut_a_adds_no_tensor_and_is_never_trained() -> None:
    model = cifar_resnet(depth=8, shortcut="A")
    assert not any("shortcut" in name for name in model.state_dict())
    placement = model.layer2[0].shortcut
    placement.weight = nn.Parameter(placement.weight.clone())
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1, weight_decay=0.1)
    before = placement.weight.clone()
    model(torch.rand(2, 3, 32, 32)).sum().backward()
    optimiser.step()
    assert torch.equal(placement.weight, before)


@pytest.mark.parametrize("shortcut", ["A", "B"])
def test_removing_a_silent_channel_of_the_residual_stream_changes_nothing(shortcut: str) -> None:
    """Torch-Pruning's graph follows the stream through both shortcuts: what it removes for a dead channel was dead."""
    import torch_pruning

    torch.manual_seed(0)
    model = cifar_resnet(depth=14, classes=5, widths=(4, 6, 12), shortcut=shortcut).eval()
    _randomise_statistics(model)
    images = torch.rand(3, 3, 32, 32)
    graph = torch_pruning.DependencyGraph().build_dependency(model, (images,))
    dead = {"layer1.1.conv2": [0, 3], "layer2.1.conv2": [1, 2, 5], "layer3.1.conv2": [0, 7], "layer3.0.conv1": [4]}
    groups = [
        graph.get_pruning_group(model.get_submodule(name), torch_pruning.prune_conv_out_channels, idxs=indices)
        for name, indices in dead.items()
    ]
    with torch.no_grad():
        for group in groups:
            for dependency, indices in group:
                layer = dependency.target.module
                if isinstance(layer, nn.BatchNorm2d):
                    layer.weight[indices] = 0
                    layer.bias[indices] = 0
        placements = [m for m in model.modules() if isinstance(m, ChannelPlacement)]
        # With shortcut A a silent channel of stage 2 still hears stage 1 through the placement; mute that too.
        for group in groups:
            for dependency, indices in group:
                if dependency.target.module in placements and graph.is_out_channel_pruning_fn(dependency.handler):
                    dependency.target.module.weight[indices] = 0
        expected = model(images)
        for group in groups:
            group.prune()
        actual = model(images)
    assert model.conv1.out_channels == 2
    assert model.layer2[0].conv2.out_channels == 3
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-5)


def _randomise_statistics(model: nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.3)
            nn.init.normal_(module.running_mean, 0, 0.3)
            nn.init.uniform_(module.running_var, 0.5, 1.5)


@pytest.mark.parametrize("stride", [1, 2])
def test_convolutions_pad_like_tensorflow_same(stride: int) -> None:
    """By TensorFlow's definition: total padding max((out - 1) * stride + kernel - in, 0), the smaller half first."""
    torch.manual_seed(0)
    unit = ConvBn(3, 5, 3, stride).eval()
    _randomise_statistics(unit)
    size = 12
    total = max((size // stride - 1) * stride + 3 - size, 0)
    x = torch.randn(2, 3, size, size)
    padded = functional.pad(x, (total // 2, total - total // 2) * 2)
    with torch.no_grad():
        expected = unit.bn(functional.conv2d(padded, unit.conv.weight, unit.conv.bias, stride=stride))
        assert torch.allclose(unit(x), expected, atol=1e-6)


@pytest.mark.parametrize(
    "arguments",
    [{"depth": 21}, {"depth": 2}, {"shortcut": "C"}, {"widths": (32, 16, 64)}, {"widths": (16, 32)}, {"classes": 1}],
)
def test_impossible_arguments_are_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises(BadInputError, match="cifar_resnet cannot be built"):
        cifar_resnet(**arguments)


@pytest.mark.parametrize(
    ("name", "width"),
    [(name, width) for name in ("cifar_resnet", "mlperf_resnet8") for width in (0, -1.0, math.inf, math.nan)]
    + [("mobilenet_v1", 0.01)],
)
def test_a_width_without_channels_is_refused(name: str, width: float) -> None:
    with pytest.raises(BadInputError, match="width"):
        ARCHITECTURES.load(name)(width=width)


@pytest.mark.parametrize("name", ARCHITECTURES.names())
@pytest.mark.parametrize("width", [0.5, 1.0, 1.5])
def test_width_multiplies_the_channels_of_every_layer(name: str, width: float) -> None:
    """Twice the width has twice the channels everywhere but at pixels and logits, and about four times the weights."""
    factory = ARCHITECTURES.load(name)
    one, two = factory(classes=5, width=width), factory(classes=5, width=2 * width)
    for (where, small), large in zip(one.named_modules(), two.modules(), strict=True):
        if isinstance(small, nn.Conv2d):
            assert large.out_channels == 2 * small.out_channels, where
            assert small.in_channels == 3 or large.in_channels == 2 * small.in_channels, where
        elif isinstance(small, nn.Linear):
            assert (small.out_features, large.out_features) == (5, 5)
            assert large.in_features == 2 * small.in_features
    assert one(torch.rand(2, 3, SIDES[name], SIDES[name])).shape == (2, 5)


@pytest.mark.parametrize("shortcut", ["A", "B"])
def test_channels_of_a_narrow_network_are_rounded_and_never_none(shortcut: str) -> None:
    narrow = cifar_resnet(8, widths=(10, 12, 30), width=0.26, shortcut=shortcut)
    assert (narrow.conv1.out_channels, narrow.layer2[0].conv1.out_channels, narrow.linear.in_features) == (3, 3, 8)
    tiny = cifar_resnet(8, width=1e-6, shortcut=shortcut)
    assert tiny.conv1.out_channels == tiny.linear.in_features == 1
    assert torch.isfinite(tiny(torch.rand(2, 3, 8, 8))).all()
