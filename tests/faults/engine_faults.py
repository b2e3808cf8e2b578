"""Fifteen ways in which an engine, or the set it is judged on, goes wrong, each done for real, and what names it.

What is broken is an ONNX graph, a preparation or a golden set; never a score.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx
import torch
from fault_subjects import Subject, exported, golden_of, opened
from graph_faults import at_input, at_output, at_tensor, before_relu, int8_steps, tap_of, without_relu
from PIL import Image

from edgekit.bundle.golden import GoldenSet
from edgekit.engines.protocol import Runner
from edgekit.export.origin import set_made_of

Made = tuple[GoldenSet, onnx.ModelProto]
# Golden sets of teachers that were trained again, by subject: two faults need them.
_TRAINED_AGAIN: dict[str, GoldenSet] = {}


@dataclass(frozen=True)
class EngineFault:
    """A fault, how it is made and what the diagnosis has to say of it first.

    Attributes:
        make: From a sound subject to a golden set and a graph of which one is wrong.
        names: The first finding's fault.
        says: Words that the first finding's text has to hold.
        harmless: Subjects whose maps and answers mind so little that the policy passes; the fault is named even so.
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


def swapped_channels(subject: Subject, seed: int = 3) -> Made:
    """The tapped activation's channels reach the head and the map in another order."""
    model = subject.copied()
    (head,) = (module for module in subject.teacher.model.modules() if isinstance(module, torch.nn.Linear))
    order = np.random.default_rng(seed).permutation(head.in_features)
    at_tensor(model, tap_of(model), ("Gather", [order.astype(np.int64)], {"axis": 1}))
    return subject.golden, model


def red_for_blue(subject: Subject) -> Made:
    return _changed(subject, lambda model: at_input(model, "image", ("Gather", [np.array([2, 1, 0])], {"axis": 1})))


def normalised_twice(subject: Subject) -> Made:
    spec = subject.golden.card.input
    mean, std = (np.array(values, dtype=np.float32).reshape(1, 3, 1, 1) for values in (spec.mean, spec.std))
    return _changed(subject, lambda model: at_input(model, "image", ("Sub", [mean], {}), ("Div", [std], {})))


def sharp_pixels(subject: Subject) -> Made:
    """The teacher saw small photographs enlarged by a smoothing filter; the golden set's pixels are of large ones."""
    spec, factor = subject.golden.card.input, subject.coarse
    small = (spec.width // factor, spec.height // factor)

    def seen(photo: Image.Image) -> Image.Image:
        thumbnail = photo.resize(small, Image.Resampling.BOX)
        return thumbnail.resize(photo.size, Image.Resampling.BILINEAR)

    return _seen_otherwise(subject, seen)


def cropped_pixels(subject: Subject) -> Made:
    """The teacher's preparation cropped the middle, as many do; the golden set's pixels are of whole photographs."""

    def seen(photo: Image.Image) -> Image.Image:
        x, y = photo.width / 16, photo.height / 16
        box = (x, y, photo.width - x, photo.height - y)
        return photo.resize(photo.size, Image.Resampling.BILINEAR, box=box)

    return _seen_otherwise(subject, seen)


def _seen_otherwise(subject: Subject, seen: Callable[[Image.Image], Image.Image]) -> Made:
    pixels = np.stack([np.asarray(seen(Image.fromarray(one))) for one in subject.golden.pixels])
    golden = golden_of(subject.teacher, pixels, subject.golden.labels)
    return replace(golden, pixels=subject.golden.pixels), subject.model


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
    """The teacher was trained again, and is another file; the engine is still of the weights before."""
    if subject.name not in _TRAINED_AGAIN:
        later = replace(subject.teacher, model=subject.later(subject.teacher), digest="1" * 64)
        _TRAINED_AGAIN[subject.name] = golden_of(later, subject.golden.pixels, subject.golden.labels)
    return _TRAINED_AGAIN[subject.name], subject.model


def stale_unsigned_engine(subject: Subject) -> Made:
    """The same where the engine does not say what it was made of, as one of before or a TensorRT plan."""
    model = subject.copied()
    set_made_of(model, "", "")
    return stale_engine(subject)[0], model


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
    """Of the maps of two classes: a best answer's map alone is hardly negative anywhere."""
    classes = 2
    golden = golden_of(subject.teacher, subject.golden.pixels, subject.golden.labels, classes=classes)
    model = exported(subject.teacher, classes=classes)
    without_relu(model)
    return golden, model


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
    "swapped channels": EngineFault(swapped_channels, "head-scrambled", ("Channels are swapped", "wrecked the body")),
    "RGB for BGR": EngineFault(red_for_blue, "input-channel-order", ("red and blue",), ("demo",)),
    "wrong mean and std": EngineFault(normalised_twice, "input-mean-std", ("applied twice",)),
    "wrong resize filter": EngineFault(sharp_pixels, "input-resize", ("filter", "coarser")),
    "wrong resize frame": EngineFault(cropped_pixels, "input-resize", ("frame", "cut at the borders"), ("discs",)),
    "NHWC for NCHW": EngineFault(rows_for_channels, "input-layout", ("NHWC",)),
    "transposed map": EngineFault(transposed_map, "map-transposed", ("transpose",)),
    "map shifted by one cell": EngineFault(shifted_map, "map-shifted", ("+1 rows and +0 columns",)),
    "class off by one": EngineFault(class_off_by_one, "map-of-another-class", ("off by",)),
    "stale engine": EngineFault(stale_engine, "stale-engine", ("teacher", "111111111111")),
    "stale engine without digests": EngineFault(stale_unsigned_engine, "maps-drifted", ("earlier weights",)),
    "wrong tap": EngineFault(wrong_tap, "wrong-tap", ("tap",)),
    "sign lost": EngineFault(lost_sign, "sign-lost", ("negated",)),
    "saturated scale": EngineFault(saturated_scale, "scale-saturated", ("scale",)),
    "saturated tap": EngineFault(saturated_tap, "scale-saturated", ("scale",)),
    "dropped ReLU": EngineFault(dropped_relu, "relu-missing", ("ReLU",)),
    "batch mixed up": EngineFault(turned_batch, "batch-mixed-up", ("sample 0 ",)),
    "half of the golden set repeated": EngineFault(half_repeated, "golden-repeated", ("48 of 96 are different",)),
}
# Three of the fifteen are made in two ways each.
ALSO = {
    "wrong resize frame": "wrong resize filter",
    "saturated tap": "saturated scale",
    "stale engine without digests": "stale engine",
}
