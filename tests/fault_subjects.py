"""Trained networks to be broken: each with its golden set, its engine's file and the means to make others of it."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import coloured_discs
import networks
import numpy as np
import onnx
import torch
from torch import nn

from edgekit.attribution.spec import MapSpec
from edgekit.bundle.golden import FurtherMaps, GoldenSet
from edgekit.core.progress import NULL_OBSERVER
from edgekit.demo.images import draw_image
from edgekit.demo.network import teacher_path
from edgekit.engines.ort_cpu import ENGINE as ORT_CPU
from edgekit.engines.protocol import Engine, EngineOptions, Runner
from edgekit.export.explained import explained_onnx
from edgekit.export.origin import set_made_of
from edgekit.interface.card import ModelCard
from edgekit.teacher.checkpoint import LoadedModel
from edgekit.teacher.explain import Explainer
from edgekit.teacher.golden import teacher_answers
from edgekit.teacher.loading import load_model
from edgekit.teacher.methods.grad_cam import GRAD_CAM
from edgekit.teacher.options import MapOptions
from edgekit.teacher.tap import Tap

SAMPLES = 96


@dataclass(frozen=True)
class Subject:
    """A trained network, what it says about held-out images, and its engine's graph.

    Attributes:
        name: For test ids.
        teacher: The network.
        golden: Its golden set.
        model: Its explained graph in FP32; copy it before changing it.
        training: Other pixels and labels of the same kind, for whoever trains or calibrates.
        other_tap: Another module whose output has the tap's size.
        later: Makes the network that became of the teacher when it was trained again.
        coarse: How many times coarser its images have to be for it to mind.
    """

    name: str
    teacher: LoadedModel
    golden: GoldenSet
    model: onnx.ModelProto
    training: tuple[np.ndarray, np.ndarray]
    other_tap: str
    later: Callable[[LoadedModel], nn.Module]
    coarse: int

    def copied(self) -> onnx.ModelProto:
        """The graph, to be changed."""
        model = onnx.ModelProto()
        model.CopyFrom(self.model)
        return model


def exported(loaded: LoadedModel, classes: int = 1) -> onnx.ModelProto:
    """The explained graph in FP32, which says what it was made of as the export stage lets it."""
    model = explained_onnx(loaded, MapOptions(classes=classes), use_closed_form=True, opset=18).model
    set_made_of(model, loaded.digest, loaded.digest)
    return model


def opened(model: onnx.ModelProto, path: Path, engine: Engine = ORT_CPU) -> Runner:
    """A graph as an engine."""
    path.write_bytes(model.SerializeToString(deterministic=True))
    return engine.open(path, EngineOptions(threads=1))


def golden_of(
    teacher: LoadedModel, pixels: np.ndarray, labels: np.ndarray, masks: np.ndarray | None = None, classes: int = 1
) -> GoldenSet:
    """What a network says about images, with the maps of its best `classes` answers."""
    tap = teacher.card.tap
    assert tap is not None
    logits, views = teacher_answers(teacher, Explainer(GRAD_CAM, (Tap(tap),)), classes, pixels, NULL_OBSERVER)
    maps, *further = views
    spec = MapSpec(GRAD_CAM.name, tap, *maps.shape[1:], classes=classes)
    return GoldenSet(
        card=teacher.card,
        map_spec=spec,
        pixels=pixels,
        labels=labels,
        logits=logits,
        maps=maps,
        names=tuple(f"{index}.png" for index in range(len(pixels))),
        masks=masks,
        teacher=teacher.digest,
        further=tuple(FurtherMaps(view, array) for view, array in zip(spec.views[1:], further, strict=True)),
    )


def demo_images(split: str, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pixels, labels and masks of the demo's images."""
    images = [draw_image(1, split, index) for index in range(count)]
    return (
        np.stack([image.pixels for image in images]),
        np.array([image.label for image in images]),
        np.stack([image.mask for image in images]),
    )


@functools.cache
def demo() -> Subject:
    """The classifier that comes with edgekit: residual, 8 x 8 maps, six shapes."""
    teacher = load_model(teacher_path())
    golden = golden_of(teacher, *demo_images("val", SAMPLES))
    return Subject(
        "demo", teacher, golden, exported(teacher), demo_images("broad", 96)[:2], "layer3.0.bn1", demo_later, 4
    )


def demo_later(teacher: LoadedModel) -> nn.Module:
    """The demo's network shaken and trained for some epochs more."""
    network = copy.deepcopy(teacher.model)
    with torch.random.fork_rng():
        torch.manual_seed(5)
        for module in network.modules():
            if isinstance(module, nn.Conv2d):
                module.weight.data += 0.5 * module.weight.std() * torch.randn_like(module.weight)
        coloured_discs.train(network, teacher.card, *demo_images("broad", 96)[:2], epochs=3, lr=0.01)
    return network


@functools.cache
def discs_network(seed: int = 0, epochs: int = 7) -> nn.Module:
    """`networks.Residual`, trained to tell the colours of discs."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = networks.Residual(classes=len(coloured_discs.COLOURS))
        coloured_discs.train(model, discs_card(), *coloured_discs.drawn(640, seed=0)[:2], epochs=epochs, lr=0.05)
    return model


def discs_card() -> ModelCard:
    """The card of `discs_network`."""
    return replace(coloured_discs.CARD, tap="layer2")


@functools.cache
def discs() -> Subject:
    """A network of `networks` that minds colours: 16 x 16 maps of ten channels, three classes."""
    teacher = LoadedModel(discs_network(), discs_card(), "networks:Residual", {}, None, "0" * 64)
    golden = golden_of(teacher, *coloured_discs.drawn(SAMPLES, seed=1))
    return Subject(
        "discs",
        teacher,
        golden,
        exported(teacher),
        coloured_discs.drawn(96, seed=2)[:2],
        "layer2.bn1",
        lambda _: discs_network(1, epochs=3),
        8,
    )
