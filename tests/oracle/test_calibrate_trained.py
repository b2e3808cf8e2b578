"""On trained networks quantisation moves answers and maps little, and what is worse by design shows as worse."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import pytest
import torch
from explained_graphs import ArrayImages, GraphBuilder
from PIL import Image
from safetensors.numpy import load_file
from torch import nn

from edgekit.attribution.spec import OWN_CLASS
from edgekit.calibrate.calibrator import CALIBRATORS
from edgekit.calibrate.formats import NUMBER_FORMATS, NumberFormat, number_format
from edgekit.calibrate.graph import parse_graph
from edgekit.calibrate.options import CalibrateOptions
from edgekit.calibrate.qdq import serialise
from edgekit.calibrate.stage import quantise_graph
from edgekit.half.typed import type_half

FORMATS = pytest.mark.parametrize("fmt", NUMBER_FORMATS.values(), ids=lambda fmt: fmt.name)
Array = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Case:
    """A trained network, images to calibrate on and others to judge by."""

    model: onnx.ModelProto
    calibration: Array
    held_out: Array


@dataclass(frozen=True)
class Agreement:
    """How near a quantised network is to its original: means over the samples with a map."""

    same_class: float
    cosine: float
    top_fifth: float


def answers(data: bytes, images: Array, classes: npt.NDArray[np.int32]) -> tuple[Array, Array]:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    # Without fusion: the graph's own arithmetic, the same on every processor.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    return session.run(["logits", "attribution"], {"image": images, "class_index": classes})


def agreement(case: Case, fmt: NumberFormat, options: CalibrateOptions, *, half: bool = False) -> Agreement:
    data = case.model.SerializeToString()
    result = quantise_graph(parse_graph(data, where="test"), ArrayImages(case.calibration), fmt, options)
    model = type_half(result.model).model if half else result.model
    logits, maps = answers(data, case.held_out, np.full(len(case.held_out), OWN_CLASS, dtype=np.int32))
    classes = logits.argmax(axis=1).astype(np.int32)
    quantised_logits, quantised_maps = answers(serialise(model), case.held_out, classes)
    usable = maps.any(axis=(1, 2)) & quantised_maps.any(axis=(1, 2))
    assert usable.mean() > 0.9
    a, b = (item[usable].reshape(int(usable.sum()), -1).astype(np.float64) for item in (maps, quantised_maps))
    cosine = (a * b).sum(axis=1) / np.sqrt((a**2).sum(axis=1) * (b**2).sum(axis=1))
    size = a.shape[1] // 5
    tops = [np.argsort(-item, axis=1, kind="stable")[:, :size] for item in (a, b)]
    overlap = [len(np.intersect1d(*pair)) / len(np.union1d(*pair)) for pair in zip(*tops, strict=True)]
    same = (quantised_logits.argmax(axis=1) == classes).mean()
    return Agreement(float(same), float(cosine.mean()), float(np.mean(overlap)))


# A network trained here, in a second or two


def patterns(count: int, seed: int) -> tuple[Array, npt.NDArray[np.int64]]:
    """One of four textures of 7 x 7 pixels somewhere in noise, and which."""
    rng = np.random.default_rng(seed)
    grid = np.indices((7, 7))
    textures = np.stack([grid[0] % 2, grid[1] % 2, grid.sum(axis=0) % 2, (grid[0] // 2 + grid[1] // 2) % 2]) * 2.0 - 1
    labels = rng.integers(0, 4, count)
    images = rng.normal(0, 0.5, (count, 3, 16, 16))
    for image, label, top, left in zip(images, labels, *rng.integers(0, 10, (2, count)), strict=True):
        image[:, top : top + 7, left : left + 7] += 1.2 * textures[label]
    return images.astype(np.float32), labels


class Small(nn.Module):
    """Stem, one identity block, a wider convolution, pooled linear head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.first, self.second = nn.Conv2d(16, 16, 3, padding=1), nn.Conv2d(16, 16, 3, padding=1)
        self.wide = nn.Conv2d(16, 32, 3, stride=2, padding=1)
        self.fc = nn.Linear(32, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x).relu()
        x = (self.second(self.first(x).relu()) + x).relu()
        return self.fc(self.wide(x).relu().mean((2, 3)))


def explained_small(net: Small) -> onnx.ModelProto:
    g = GraphBuilder()

    def conv(x: str, layer: nn.Conv2d) -> str:
        weight, bias = (g.constant(item.detach().numpy()) for item in (layer.weight, layer.bias))
        return g.conv_with(x, weight, bias, layer.stride[0])

    x = g.relu(conv("image", net.stem))
    x = g.relu(g.op("Add", conv(g.relu(conv(x, net.first)), net.second), x))
    explain(g, g.relu(conv(x, net.wide)), net.fc.weight.detach().numpy(), net.fc.bias.detach().numpy())
    return g.model()


def explain(g: GraphBuilder, tap: str, weight: Array, bias: Array) -> None:
    """The pooled linear head with given weights [classes, channels], and the closed form of its map."""
    classes, channels = weight.shape
    flat = g.op("Reshape", g.mean(tap), g.constant([-1, channels], np.int64))
    logits = g.op("Gemm", flat, g.constant(weight), g.constant(bias), transB=1)
    gradient = g.op("MatMul", g.one_hot(logits, classes), g.constant(weight.copy()))
    g.finish(logits, g.weighted_sum(g.op("Unsqueeze", gradient, g.constant([2, 3], np.int64)), tap))


@cache
def trained() -> Case:
    torch.manual_seed(0)
    net, (images, labels) = Small(), patterns(2048, seed=1)
    optimiser = torch.optim.Adam(net.parameters(), lr=4e-3)
    for step in range(160):
        chosen = slice(step % 32 * 64, step % 32 * 64 + 64)
        loss = nn.functional.cross_entropy(net(torch.from_numpy(images[chosen])), torch.from_numpy(labels[chosen]))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    held_out, truth = patterns(256, seed=2)
    with torch.no_grad():
        assert (net(torch.from_numpy(held_out)).argmax(dim=1).numpy() == truth).mean() > 0.9
    return Case(explained_small(net), patterns(64, seed=3)[0], held_out)


@FORMATS
@pytest.mark.parametrize("method", CALIBRATORS.names())
def test_a_trained_network_keeps_answers_and_maps(fmt: NumberFormat, method: str) -> None:
    found = agreement(trained(), fmt, CalibrateOptions(method=method))
    # Entropy clips hard by design; the others are as good as eight bits allow.
    floor = Agreement(0.97, 0.995, 0.9) if method == "entropy" else Agreement(0.99, 0.9995, 0.97)
    assert found.same_class >= floor.same_class
    assert found.cosine >= floor.cosine
    assert found.top_fifth >= floor.top_fifth


@FORMATS
def test_what_clips_half_of_the_values_is_worse(fmt: NumberFormat) -> None:
    sound, clipped = (
        agreement(trained(), fmt, CalibrateOptions(method="percentile", percentile=share)) for share in (99.999, 60.0)
    )
    assert clipped.cosine < sound.cosine - 0.01
    assert clipped.top_fifth < sound.top_fifth


def test_fp16_types_cost_a_trained_network_next_to_nothing() -> None:
    fmt, options = number_format("trt-s8s8"), CalibrateOptions(method="minmax")
    single, half = (agreement(trained(), fmt, options, half=half) for half in (False, True))
    assert half.same_class >= single.same_class - 0.005
    assert half.cosine >= single.cosine - 1e-4
    assert half.top_fifth >= single.top_fifth - 0.01


# Published weights on real images


@cache
def real(shared_data: Path) -> Case:
    with tarfile.open(shared_data / "cifar10" / "test.tar.gz") as archive:
        images = []
        for position, member in enumerate(archive):
            if member.isfile() and position % 30 == 0:
                images.append(np.asarray(Image.open(io.BytesIO(archive.extractfile(member).read())).convert("RGB")))
    card = json.loads((shared_data / "models" / "cifar10-resnet20.json").read_text(encoding="utf-8"))
    mean, std = (np.array(card["input"][key], dtype=np.float32) for key in ("mean", "std"))
    pixels = ((np.stack(images).astype(np.float32) / 255 - mean) / std).transpose(0, 3, 1, 2)
    pixels = np.ascontiguousarray(pixels[np.random.default_rng(0).permutation(len(pixels))])
    model = explained_resnet20(load_file(shared_data / "models" / "cifar10-resnet20.safetensors"))
    return Case(model, pixels[:128], pixels[128:])


def explained_resnet20(tensors: Mapping[str, Array]) -> onnx.ModelProto:
    """The network of the card, batch norms folded: `w' = w g`, `b' = b - m g` with `g = gamma / sqrt(v + eps)`."""
    g = GraphBuilder(side=32)

    def conv(x: str, name: str, norm: str, stride: int = 1) -> str:
        gain = tensors[f"{norm}.weight"] / np.sqrt(tensors[f"{norm}.running_var"] + 1e-5)
        weight = tensors[f"{name}.weight"] * gain[:, None, None, None]
        return g.conv_with(
            x,
            g.constant(weight),
            g.constant(tensors[f"{norm}.bias"] - tensors[f"{norm}.running_mean"] * gain),
            stride,
        )

    every_second = [g.constant(values, np.int64) for values in ([0, 0], [99, 99], [2, 3], [2, 2])]
    x = g.relu(conv("image", "conv1", "bn1"))
    for stage in (1, 2, 3):
        for block in range(3):
            name, stride = f"layer{stage}.{block}", 2 if stage > 1 and block == 0 else 1
            inner = g.relu(conv(x, f"{name}.conv1", f"{name}.bn1", stride))
            inner = conv(inner, f"{name}.conv2", f"{name}.bn2")
            if stride == 2:
                half = 4 * 2 ** (stage - 1)
                x = g.op("Pad", g.op("Slice", x, *every_second), g.constant([0, half, 0, 0, 0, half, 0, 0], np.int64))
            x = g.relu(g.op("Add", inner, x))
    head = next(name.removesuffix(".weight") for name in tensors if tensors[name].shape == (10, 64))
    explain(g, x, tensors[f"{head}.weight"], tensors[f"{head}.bias"])
    return g.model()


@pytest.mark.shared_data
@pytest.mark.parametrize(
    ("method", "fmt", "floor"),
    [
        ("minmax", "x86-u8s8", Agreement(0.95, 0.998, 0.9)),
        ("percentile", "x86-u8s8", Agreement(0.96, 0.998, 0.9)),
        ("mse", "x86-u8s8", Agreement(0.96, 0.998, 0.9)),
        ("minmax", "trt-s8s8", Agreement(0.95, 0.997, 0.88)),
    ],
)
def test_a_published_network_keeps_answers_and_maps(method: str, fmt: str, floor: Agreement, shared_data: Path) -> None:
    found = agreement(real(shared_data), NUMBER_FORMATS[fmt], CalibrateOptions(method=method))
    assert found.same_class >= floor.same_class
    assert found.cosine >= floor.cosine
    assert found.top_fifth >= floor.top_fifth


@pytest.mark.shared_data
def test_fp16_types_cost_a_published_network_next_to_nothing(shared_data: Path) -> None:
    fmt, options = number_format("trt-s8s8"), CalibrateOptions(method="minmax")
    single, half = (agreement(real(shared_data), fmt, options, half=half) for half in (False, True))
    assert half.same_class >= single.same_class - 0.02
    assert half.cosine >= single.cosine - 5e-4
    assert half.top_fifth >= single.top_fifth - 0.02
