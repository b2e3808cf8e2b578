"""The backgrounds of the demo's images: six families of patterns, one for each class to be confused with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from edgekit.demo.shapes import Field

__all__ = ["TEXTURES"]

_TURN = 2 * np.pi


def _wave(phase: npt.NDArray[Any]) -> Field:
    # A sine sharpened towards a square wave: edges as crisp as the objects'.
    wave: Field = np.clip(0.5 + 1.2 * np.sin(phase), 0, 1)
    return wave


def _frequency(rng: np.random.Generator) -> float:
    return _TURN / rng.uniform(7, 15)


def _rows(x: Field, y: Field, rng: np.random.Generator) -> Field:
    return _wave(_frequency(rng) * (y + rng.uniform(-0.2, 0.2) * x) + rng.uniform(0, _TURN))


def _columns(x: Field, y: Field, rng: np.random.Generator) -> Field:
    return _wave(_frequency(rng) * (x + rng.uniform(-0.2, 0.2) * y) + rng.uniform(0, _TURN))


def _diagonals(x: Field, y: Field, rng: np.random.Generator) -> Field:
    side = 1 if rng.random() < 0.5 else -1
    return _wave(0.7 * _frequency(rng) * (x + side * rng.uniform(0.7, 1.4) * y) + rng.uniform(0, _TURN))


def _checks(x: Field, y: Field, rng: np.random.Generator) -> Field:
    frequency = _frequency(rng) * 0.8
    across, down = rng.uniform(0, _TURN), rng.uniform(0, _TURN)
    board: Field = np.clip(0.5 + 3 * np.sin(frequency * x + across) * np.sin(frequency * y + down), 0, 1)
    return board


def _dots(x: Field, y: Field, rng: np.random.Generator) -> Field:
    frequency = _frequency(rng)
    across, down = rng.uniform(0, _TURN), rng.uniform(0, _TURN)
    dots: Field = np.clip(2 * (np.cos(frequency * x + across) + np.cos(frequency * y + down)) - 1.4, 0, 1)
    return dots


def _blotches(x: Field, y: Field, rng: np.random.Generator) -> Field:
    total = np.zeros_like(x)
    for _ in range(5):
        along_x, along_y = rng.uniform(-0.35, 0.35), rng.uniform(-0.35, 0.35)
        total += np.sin(along_x * x + along_y * y + rng.uniform(0, _TURN))
    blotches: Field = np.clip(0.5 + 0.35 * total, 0, 1)
    return blotches


TEXTURES: dict[str, Callable[[Field, Field, np.random.Generator], Field]] = {
    "rows": _rows,
    "columns": _columns,
    "diagonals": _diagonals,
    "checks": _checks,
    "dots": _dots,
    "blotches": _blotches,
}
