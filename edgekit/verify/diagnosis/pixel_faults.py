"""Faults of the pixels' places: another memory layout, another resizing; undone, and the engine asked again."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from types import TracebackType

import numpy as np
import numpy.typing as npt

from edgekit.engines.protocol import EngineInfo, EngineOutput, Runner
from edgekit.verify.diagnosis.finding import Finding, best_of_each
from edgekit.verify.diagnosis.suspect import Suspect, match, restores

__all__ = ["find_layout_faults", "find_resize_faults"]

# How many times smaller the images may have been before they were enlarged.
_COARSER = (2, 3, 4, 6, 8)

Images = npt.NDArray[np.float32]
Pixels = npt.NDArray[np.uint8]


def find_layout_faults(suspect: Suspect) -> list[Finding]:
    """Ask again with the input's memory in another order; what restores maps and answers is a finding."""
    if suspect.runner is None:
        return []
    findings = []
    for words, as_rows in (
        ("it reads an NHWC buffer where an NCHW one is meant", True),
        ("it is given an NCHW buffer as if it were NHWC", False),
    ):
        after = match(suspect.part, suspect.ask(_Reordered(suspect.runner, as_rows), suspect.part))
        if restores(suspect.part_match, after):
            text = f"Maps and predictions match when it is undone that the input's layout is wrong: {words}."
            findings.append(Finding("input-layout", text, suspect.part_match, after))
    return best_of_each(findings)


class _Reordered:
    """A runner whose images are written to memory in another order before it reads them.

    Args:
        inner: The engine.
        as_rows: Undo that it moves channels last and reads the result as if they still were first; else undo that it
            takes what has channels first for having them last.
    """

    def __init__(self, inner: Runner, as_rows: bool) -> None:
        self._inner = inner
        self._as_rows = as_rows

    @property
    def info(self) -> EngineInfo:
        """The engine's."""
        return self._inner.info

    def run(self, images: Images, class_index: npt.NDArray[np.int32]) -> EngineOutput:
        """The engine's answer to the reordered images; see `Runner.run`."""
        count, channels, height, width = images.shape
        if self._as_rows:
            turned = images.reshape(count, height, width, channels).transpose(0, 3, 1, 2)
        else:
            turned = images.transpose(0, 2, 3, 1).reshape(count, channels, height, width)
        return self._inner.run(np.ascontiguousarray(turned), class_index)

    def close(self) -> None:
        """Nothing: the engine is another's to close."""

    def __enter__(self) -> _Reordered:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def find_resize_faults(suspect: Suspect) -> list[Finding]:
    """Ask again with smoothed, sharpened or otherwise framed pixels; what comes much nearer is a finding.

    What a filter lost cannot be put back, so a match need not become perfect.
    """
    if suspect.runner is None:
        return []
    findings = []
    for words, pixels in _other_sizes(suspect.part.pixels):
        answers = suspect.ask(suspect.runner, replace(suspect.part, pixels=pixels))
        after = match(suspect.part, answers)
        if restores(suspect.part_match, after):
            text = (
                f"Maps and predictions come nearer when the images are {words}. Images were resized with another "
                "filter or to another frame than the teacher's; make them by edgekit's own rule."
            )
            findings.append(Finding("input-resize", text, suspect.part_match, after))
    return best_of_each(findings)


def _other_sizes(pixels: Pixels) -> Iterator[tuple[str, Pixels]]:
    values = pixels.astype(np.float32)
    once = _smoothed(values)
    yield "smoothed: they were made smaller without averaging", _rounded(once)
    yield "sharpened: they were smoothed, or enlarged from smaller ones", _rounded(2 * values - once)
    for parts in _COARSER:
        words = f"made coarser {parts} times: the teacher's were enlarged from smaller ones by a smoothing filter"
        yield words, _rounded(_coarser(values, parts))
    yield "cut at the borders (7/8 of each side): a centre was cropped before", _rounded(_framed(values, 7 / 8))
    yield "framed wider (8/7 of each side): a centre was cropped", _rounded(_framed(values, 8 / 7))


def _rounded(values: Images) -> Pixels:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def _smoothed(values: Images) -> Images:
    """A quarter, a half, a quarter along rows and columns; borders repeated."""
    for axis in (1, 2):
        padded = np.pad(values, [(1, 1) if place == axis else (0, 0) for place in range(4)], mode="edge")
        size = values.shape[axis]
        before, same, after = (np.take(padded, np.arange(start, start + size), axis=axis) for start in range(3))
        values = ((before + 2 * same + after) / 4).astype(np.float32)
    return values


def _coarser(values: Images, parts: int) -> Images:
    """Averaged down to a `parts`-th of each side, and enlarged again bilinearly."""
    for axis in (1, 2):
        size = values.shape[axis]
        small = max(size // parts, 1)
        # Each small pixel is the mean of the stretch that it covers, as in Pillow's box filter.
        edges = np.linspace(0, size, small + 1)
        covers = np.minimum(edges[1:, None], np.arange(1, size + 1)) - np.maximum(edges[:-1, None], np.arange(size))
        means: Images = (np.maximum(covers, 0) * small / size).astype(np.float32)
        enlarged = _between(small, (np.arange(size) + 0.5) * small / size - 0.5) @ means
        values = np.moveaxis(np.tensordot(enlarged, values, axes=(1, axis)), 0, axis)
    return values


def _framed(values: Images, share: float) -> Images:
    """The middle `share` of each side, resized bilinearly to the size there was; borders repeated beyond 1."""
    for axis in (1, 2):
        size = values.shape[axis]
        framed = _between(size, (np.arange(size) + 0.5 - size / 2) * share + size / 2 - 0.5)
        values = np.moveaxis(np.tensordot(framed, values, axes=(1, axis)), 0, axis)
    return values


def _between(size: int, places: npt.NDArray[np.float64]) -> Images:
    """Weights [len(places), size] that read a row of `size` pixels at places between them, borders repeated."""
    clipped = np.clip(places, 0, size - 1)
    distance = np.abs(clipped[:, None] - np.arange(size))
    weights: Images = np.maximum(1 - distance, 0).astype(np.float32)
    return weights
