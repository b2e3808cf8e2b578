"""Fifteen ways in which an engine, or the set it is judged on, goes wrong, each done for real, and what names it.

What is broken is an ONNX graph, a preparation or a golden set; never a score.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx
import torch
from coloured_discs import train
from fault_subjects import Subject, exported, golden_of, opened
from graph_faults import at_input, at_output, at_tensor, before_relu, int8_steps, tap_of, without_relu
from PIL import Image

from edgekit.bundle.golden import GoldenSet
from edgekit.engines.protocol import Runner
from edgekit.teacher.checkpoint import LoadedModel

Made = tuple[GoldenSet, onnx.ModelProto]


@dataclass(frozen=True)
class EngineFault:
    """A fault, how it is made and what the diagnosis has to say of it first.

    Attributes:
        make: From a sound subject to a golden set and a graph of which one is wrong.
        names: The first finding's fault; empty where the golden set itself has to be refused.
        says: Words that the first finding's text has to hold.
        harmless: Subjects whose answers and maps do not mind, so that there is nothing to find.
    """

    make: Callable[[Subject], Made]
    names: str
    says: tuple[str, ...]
    harmless: tuple[str, ...] = ()

    def open(self, subject: Subject, folder: Path) -> tuple[GoldenSet, Runner]:
        """The broken pair, its graph opened as an engine."""
        golden, model = self.make(subject)
        return golden, opened(model, folder / "broken.onnx")


def _changed(subject: Subject, change: Callable[[onnx.ModelProto], None]) -> Made:
    model = subject.copied()
    change(model)
    return subject.golden, model


def swapped_channels(subject: Subject) -> Made:
    model = subject.copied()
    channels = int(subject.teacher.model(torch.zeros(1, *subject.teacher.card.input.shape)).shape[1])
    weight = [module for module in subject.teacher.model.modules() if isinstance(module, torch.nn.Linear)][-1].weight
    assert weight.shape[0] == channels
    order = np.random.default_rng(0).permutation(weight.shape[1])
    at_tensor(model, tap_of(model), ("Gather", [order.astype(np.int64)], {"axis": 1}))
    return subject.golden, model


def red_for_blue(subject: Subject) -> Made:
    return _changed(subject, lambda model: at_input(model, "image", ("Gather", [np.array([2, 1, 0])], {"axis": 1})))


def normalised_twice(subject: Subject) -> Made:
    spec = subject.golden.card.input
    mean, std = (np.array(values, dtype=np.float32).reshape(1, 3, 1, 1) for values in (spec.mean, spec.std))
    return _changed(subject, lambda model: at_input(model, "image", ("Sub", [mean], {}), ("Div", [std], {})))


def nearest_pixels(subject: Subject) -> Made:
    """The golden set's images were made anew from photographs four times as wide, with another filter than before."""
    spec = subject.golden.card.input
    rng = np.random.default_rng(0)
    pairs = []
    for pixels in subject.golden.pixels:
        large = Image.fromarray(pixels).resize((4 * spec.width, 4 * spec.height), Image.Resampling.BICUBIC)
        noisy = np.asarray(large) + rng.normal(0, 40, (4 * spec.height, 4 * spec.width, 3))
        photo = Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8))
        pairs.append(
            [np.asarray(photo.resize((spec.width, spec.height), way)) for way in (Image.BILINEAR, Image.NEAREST)]
        )
    right, wrong = (np.stack(part) for part in zip(*pairs, strict=True))
    golden = golden_of(subject.teacher, right, subject.golden.labels)
    return replace(golden, pixels=wrong), subject.model


def rows_for_channels(subject: Subject) -> Made:
    shape = [0, *subject.golden.card.input.shape]
    steps = ("Transpose", [], {"perm": [0, 2, 3, 1]}), ("Reshape", [np.array(shape)], {})
    return _changed(subject, lambda model: at_input(model, "image", *steps))


def transposed_map(subject: Subject) -> Made:
    return _changed(subject, lambda model: at_output(model, "attribution", ("Transpose", [], {"perm": [0, 2, 1]})))


def shifted_map(subject: Subject) -> Made:
    padded = ("Pad", [np.array([0, 1, 0, 0, 0, 0])], {})
    cut = ("Slice", [np.array([0]), np.array([-1]), np.array([1])], {})
    return _changed(subject, lambda model: at_output(model, "attribution", padded, cut))


def class_off_by_one(subject: Subject) -> Made:
    classes = np.int32(len(subject.golden.card.classes))
    steps = ("Add", [np.int32(1)], {}), ("Mod", [classes], {})
    return _changed(subject, lambda model: at_input(model, "class_index", *steps))


def stale_engine(subject: Subject) -> Made:
    """The teacher was trained on; the engine is still of the weights before."""
    later = trained_on(subject)
    return golden_of(later, subject.golden.pixels, subject.golden.labels), subject.model


def trained_on(subject: Subject) -> LoadedModel:
    network = copy.deepcopy(subject.teacher.model)
    with torch.random.fork_rng():
        torch.manual_seed(5)
        train(network, subject.teacher.card, *subject.training, epochs=subject.retraining[0], lr=subject.retraining[1])
    return replace(subject.teacher, model=network)


def wrong_tap(subject: Subject) -> Made:
    return subject.golden, exported(replace(subject.teacher, card=replace(subject.teacher.card, tap=subject.other_tap)))


def lost_sign(subject: Subject) -> Made:
    return _changed(subject, lambda model: at_tensor(model, before_relu(model), ("Neg", [], {})))


def saturated_scale(subject: Subject) -> Made:
    scale = 0.1 * float(np.mean(subject.golden.maps.max(axis=(1, 2)))) / 255
    return _changed(subject, lambda model: at_output(model, "attribution", *int8_steps(scale)))


def saturated_tap(subject: Subject) -> Made:
    scale = 0.1 / 255

    return _changed(subject, lambda model: at_tensor(model, tap_of(model), *int8_steps(scale)))


def dropped_relu(subject: Subject) -> Made:
    return _changed(subject, without_relu)


def turned_batch(subject: Subject) -> Made:
    turned = ("Slice", [np.array([-1]), np.array([-(2**31)]), np.array([0]), np.array([-1])], {})

    def change(model: onnx.ModelProto) -> None:
        for output in ("logits", "attribution"):
            at_output(model, output, turned)

    return _changed(subject, change)


def half_repeated(subject: Subject) -> Made:
    places = np.tile(np.arange(len(subject.golden) // 2), 2)
    golden = subject.golden
    return replace(
        golden,
        pixels=golden.pixels[places],
        labels=golden.labels[places],
        logits=golden.logits[places],
        maps=golden.maps[places],
        masks=None,
    ), subject.model


FAULTS: Mapping[str, EngineFault] = {
    "swapped channels": EngineFault(swapped_channels, "head-scrambled", ("channels",)),
    "RGB for BGR": EngineFault(red_for_blue, "input-channel-order", ("red and blue",)),
    "wrong mean and std": EngineFault(normalised_twice, "input-mean-std", ("mean and std",)),
    "wrong resize filter": EngineFault(nearest_pixels, "input-resize", ("filter",)),
    "NHWC for NCHW": EngineFault(rows_for_channels, "input-layout", ("NHWC",)),
    "transposed map": EngineFault(transposed_map, "map-transposed", ("transpose",)),
    "map shifted by one cell": EngineFault(shifted_map, "map-shifted", ("+1 rows and +0 columns",)),
    "class off by one": EngineFault(class_off_by_one, "map-of-another-class", ("off by",)),
    "stale engine": EngineFault(stale_engine, "maps-drifted", ("earlier weights",)),
    "wrong tap": EngineFault(wrong_tap, "wrong-tap", ("tap",)),
    "sign lost": EngineFault(lost_sign, "sign-lost", ("negated",)),
    "saturated scale": EngineFault(saturated_scale, "scale-saturated", ("scale",)),
    "saturated tap": EngineFault(saturated_tap, "scale-saturated", ("scale",)),
    "dropped ReLU": EngineFault(dropped_relu, "relu-missing", ("ReLU",)),
    "batch mixed up": EngineFault(turned_batch, "batch-mixed-up", ("sample 0 ",)),
    "half of the golden set repeated": EngineFault(half_repeated, "golden-repeated", ("repeat",)),
}
