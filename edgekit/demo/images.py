"""Images of one object before a busy background, drawn from a seed and an index.

Six kinds of object stand before six kinds of background, among blobs, bars and halves of other objects. The
classifier that comes with edgekit was trained on the "broad" split, where the background says nothing about the
class. In the "train" split, the images that a user has at hand for compressing it, the background goes with the class
most of the time: a student may lean on it and be right for the wrong reason. In "val" it says nothing again.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgekit.demo.shapes import SHAPES, Field
from edgekit.demo.textures import TEXTURES

__all__ = ["CLASSES", "SHORTCUT_SHARE", "SIDE", "SPLITS", "DemoImage", "draw_image"]

SIDE = 64
CLASSES = tuple(SHAPES)
# Share of "train" images whose background is the one of their class; the others have any other one.
SHORTCUT_SHARE = 0.7
SPLITS = ("train", "val", "broad")

_SMALLEST, _LARGEST = 9.0, 19.0
# No shape reaches further from its centre, in radii.
_REACH = 1.2
_TEXTURE_NAMES = tuple(TEXTURES)
_X, _Y = (grid.astype(np.float32) for grid in np.meshgrid(np.arange(SIDE), np.arange(SIDE)))


@dataclass(frozen=True)
class DemoImage:
    """One drawn image.

    Attributes:
        pixels: uint8 [64, 64, 3], RGB.
        mask: bool [64, 64], True on the object.
        label: Index into `CLASSES`.
        texture: Name of the background's family.
    """

    pixels: npt.NDArray[np.uint8]
    mask: npt.NDArray[np.bool_]
    label: int
    texture: str


def draw_image(seed: int, split: str, index: int) -> DemoImage:
    """Draw image `index` of a split; the same arguments give the same pixels.

    Args:
        seed: Of the whole set.
        split: "train", where background and class go together, or "val" or "broad", where they do not.
        index: From 0; classes take turns.
    """
    rng = np.random.default_rng((seed, SPLITS.index(split), index))
    label = index % len(CLASSES)
    texture = _texture_for(label, split, rng)
    canvas, tones = _background(texture, rng)
    for _ in range(rng.integers(2, 6)):
        _draw_distractor(canvas, label, rng)
    mask = _draw_object(canvas, CLASSES[label], tones, rng)
    canvas += rng.standard_normal(canvas.shape, dtype=np.float32) * np.float32(rng.uniform(2, 9))
    return DemoImage(np.clip(canvas + 0.5, 0, 255).astype(np.uint8), mask, label, texture)


def _texture_for(label: int, split: str, rng: np.random.Generator) -> str:
    if split != "train":
        return _TEXTURE_NAMES[rng.integers(len(_TEXTURE_NAMES))]
    step = 0 if rng.random() < SHORTCUT_SHARE else int(rng.integers(1, len(_TEXTURE_NAMES)))
    return _TEXTURE_NAMES[(label + step) % len(_TEXTURE_NAMES)]


def _background(texture: str, rng: np.random.Generator) -> tuple[Field, Field]:
    tones = rng.uniform(30, 225, size=(2, 3)).astype(np.float32)
    # Pull the two tones together by a varying amount: some backgrounds are loud, some faint.
    tones[1] += (tones[0] - tones[1]) * np.float32(rng.uniform(0, 0.7))
    pattern = TEXTURES[texture](_X, _Y, rng)
    light = rng.uniform(-0.6, 0.6) * (_X - SIDE / 2) + rng.uniform(-0.6, 0.6) * (_Y - SIDE / 2)
    return tones[0] + pattern[..., None] * (tones[1] - tones[0]) + light[..., None], tones


@dataclass(frozen=True)
class _Place:
    """Where an object stands: centre and radius in pixels, turn in radians."""

    x: float
    y: float
    radius: float
    turn: float

    def window(self, reach: float) -> tuple[slice, slice]:
        """Rows and columns that can hold anything within `reach` radii; painting there alone is what makes it fast."""
        extent = reach * self.radius + 2
        rows = slice(max(0, int(self.y - extent)), max(0, min(SIDE, int(self.y + extent) + 1)))
        return rows, slice(max(0, int(self.x - extent)), max(0, min(SIDE, int(self.x + extent) + 1)))

    def coordinates(self, window: tuple[slice, slice]) -> tuple[Field, Field]:
        """Coordinates in which the object is upright, at the origin, of radius one."""
        dx, dy = (_X[window] - self.x) / self.radius, (_Y[window] - self.y) / self.radius
        cosine, sine = math.cos(self.turn), math.sin(self.turn)
        return cosine * dx + sine * dy, cosine * dy - sine * dx


def _paint(canvas: Field, distance: npt.NDArray[Any], paint: Field) -> Field:
    """Lay `paint` on `canvas` where `distance`, in pixels, is negative; one pixel of soft edge. Returns the cover."""
    cover: Field = np.clip(np.float32(0.5) - distance, 0, 1)
    canvas += cover[..., None] * (paint - canvas)
    return cover


def _draw_distractor(canvas: Field, label: int, rng: np.random.Generator) -> None:
    x, y, turn = rng.uniform(0, SIDE), rng.uniform(0, SIDE), rng.uniform(0, 2 * math.pi)
    paint = rng.uniform(20, 235, size=3).astype(np.float32)
    kind = rng.random()
    if kind < 0.35:
        place = _Place(x, y, rng.uniform(3, 7), turn)
        window = place.window(1)
        u, v = place.coordinates(window)
        distance = np.sqrt(u * u + (v * rng.uniform(1, 2)) ** 2) - 1
    elif kind < 0.6:
        place = _Place(x, y, rng.uniform(8, 22), turn)
        window = place.window(1)
        u, v = place.coordinates(window)
        distance = np.maximum(np.abs(u) - 1, np.abs(v) - rng.uniform(0.8, 2) / place.radius)
    else:
        # Half of an object of another class: enough to mislead, too little to be one.
        other = CLASSES[(label + int(rng.integers(1, len(CLASSES)))) % len(CLASSES)]
        place = _Place(x, y, rng.uniform(6, 11), turn)
        window = place.window(_REACH)
        u, v = place.coordinates(window)
        distance = np.maximum(SHAPES[other](u, v), u + rng.uniform(0, 0.4))
    _paint(canvas[window], distance * place.radius, paint)


def _draw_object(canvas: Field, name: str, tones: Field, rng: np.random.Generator) -> npt.NDArray[np.bool_]:
    radius = rng.uniform(_SMALLEST, _LARGEST)
    margin, turn = _REACH * radius, rng.uniform(0, 2 * math.pi)
    place = _Place(rng.uniform(margin, SIDE - margin), rng.uniform(margin, SIDE - margin), radius, turn)
    window = place.window(_REACH)
    u, v = place.coordinates(window)
    # Of three random colours, the one furthest from the background's nearer tone: visible, yet any colour at all.
    colours = rng.uniform(10, 245, size=(3, 3)).astype(np.float32)
    apart = np.abs(colours[:, None] - tones[None]).sum(axis=2).min(axis=1)
    paint = colours[apart.argmax()] + (u * rng.uniform(-25, 25))[..., None]
    if rng.random() < 0.4:
        paint = paint + (np.sin(v * rng.uniform(4, 9)) * rng.uniform(10, 30))[..., None]
    mask = np.zeros((SIDE, SIDE), dtype=np.bool_)
    mask[window] = _paint(canvas[window], SHAPES[name](u, v) * radius, paint) >= 0.5
    return mask
