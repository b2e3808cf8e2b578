"""The objects of the demo's images, as signed distances: negative inside, in units of the object's radius."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

__all__ = ["SHAPES", "Field"]

Field = npt.NDArray[np.float32]

_TRIANGLE_REACH = 1.15
_STAR_REACH, _STAR_WAIST = 1.2, 0.52
_ARM = 0.3


def _disc(u: Field, v: Field) -> Field:
    return np.sqrt(u * u + v * v) - np.float32(1)


def _ring(u: Field, v: Field) -> Field:
    return np.abs(np.sqrt(u * u + v * v) - np.float32(0.76)) - np.float32(0.24)


def _square(u: Field, v: Field) -> Field:
    return np.maximum(np.abs(u), np.abs(v)) - np.float32(0.84)


def _triangle(u: Field, v: Field) -> Field:
    # An equilateral triangle is where three half-planes meet, each a third of a turn from the next.
    slanted = np.float32(math.sqrt(3) / 2) * np.abs(u) - np.float32(0.5) * v
    return np.maximum(slanted, v) - np.float32(_TRIANGLE_REACH / 2)


def _star(u: Field, v: Field) -> Field:
    # Folding the angle leaves one half of one point: a single edge from its tip to the waist beside it.
    half = math.pi / 5
    angle = np.abs((np.arctan2(v, u) + np.float32(math.pi)) % np.float32(2 * half) - np.float32(half))
    radius = np.sqrt(u * u + v * v)
    waist = (_STAR_WAIST * math.cos(half), _STAR_WAIST * math.sin(half))
    edge = (waist[0] - _STAR_REACH, waist[1])
    length = math.hypot(*edge)
    normal = (np.float32(edge[1] / length), np.float32(-edge[0] / length))
    along, across = radius * np.cos(angle), radius * np.sin(angle)
    distance: Field = (along - np.float32(_STAR_REACH)) * normal[0] + across * normal[1]
    return distance


def _cross(u: Field, v: Field) -> Field:
    a, b = np.abs(u), np.abs(v)
    longer, shorter = np.maximum(a, b), np.minimum(a, b)
    return np.maximum(longer - np.float32(1.05), shorter - np.float32(_ARM))


SHAPES: dict[str, Callable[[Field, Field], Field]] = {
    "disc": _disc,
    "ring": _ring,
    "square": _square,
    "triangle": _triangle,
    "star": _star,
    "cross": _cross,
}
