"""A real engine with one known fault in front of it or behind it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import TracebackType

import numpy as np
import onnx
from onnx import numpy_helper

from edgekit.engines.protocol import EngineInfo, EngineOutput, Runner
from edgekit.interface.card import InputSpec

Images = np.ndarray
Before = Callable[[Images], Images]
After = Callable[[EngineOutput], EngineOutput]


class FaultyRunner:
    """A runner that changes what goes in or what comes out.

    Args:
        inner: The engine that does the work.
        before: Changes prepared images, float32 [N, 3, H, W].
        after: Changes the answers of one call.
    """

    def __init__(self, inner: Runner, before: Before | None = None, after: After | None = None) -> None:
        self._inner = inner
        self._before = before
        self._after = after
        self.calls = 0

    @property
    def info(self) -> EngineInfo:
        return self._inner.info

    def run(self, images: Images, class_index: np.ndarray) -> EngineOutput:
        self.calls += 1
        if self._before is not None:
            images = np.ascontiguousarray(self._before(images), dtype=np.float32)
        output = self._inner.run(images, class_index)
        return output if self._after is None else self._after(output)

    def close(self) -> None:
        self._inner.close()

    def __enter__(self) -> FaultyRunner:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def on_maps(change: Callable[[np.ndarray], np.ndarray]) -> After:
    """A fault of the maps alone, [N, h, w] to [N, h, w]."""

    def after(output: EngineOutput) -> EngineOutput:
        return EngineOutput(output.logits, np.ascontiguousarray(change(output.attribution), dtype=np.float32))

    return after


def on_logits(change: Callable[[np.ndarray], np.ndarray]) -> After:
    """A fault of the logits alone, [N, classes] to [N, classes]."""

    def after(output: EngineOutput) -> EngineOutput:
        return EngineOutput(np.ascontiguousarray(change(output.logits), dtype=np.float32), output.attribution)

    return after


def shifted(rows: int, columns: int) -> After:
    """Maps moved down and to the right, with zeros where nothing came from."""

    def move(maps: np.ndarray) -> np.ndarray:
        height, width = maps.shape[1:]
        moved = np.zeros_like(maps)
        moved[:, max(rows, 0) : height + min(rows, 0), max(columns, 0) : width + min(columns, 0)] = maps[
            :, max(-rows, 0) : height + min(-rows, 0), max(-columns, 0) : width + min(-columns, 0)
        ]
        return moved

    return on_maps(move)


def prepared_as(right: InputSpec, wrong: InputSpec) -> Before:
    """Inputs prepared with `wrong` where the engine was made for `right`."""
    return lambda images: _prepare(_pixels(images, right), wrong)


def _channels(values: tuple[float, float, float]) -> np.ndarray:
    return np.array(values, dtype=np.float64)[None, :, None, None]


def _pixels(images: np.ndarray, spec: InputSpec) -> np.ndarray:
    return (images * _channels(spec.std) + _channels(spec.mean)) * spec.divisor


def _prepare(pixels: np.ndarray, spec: InputSpec) -> np.ndarray:
    return (pixels / spec.divisor - _channels(spec.mean)) / _channels(spec.std)


class Delayed:
    """Every call answers with the maps of the call before, as from a buffer that is read too early."""

    def __init__(self) -> None:
        self._last: np.ndarray | None = None

    def __call__(self, output: EngineOutput) -> EngineOutput:
        maps, self._last = self._last, output.attribution
        fits = maps is not None and maps.shape == output.attribution.shape
        return EngineOutput(output.logits, maps if fits else output.attribution)


class FirstForEver:
    """Every sample gets the very first map."""

    def __init__(self) -> None:
        self._first: np.ndarray | None = None

    def __call__(self, output: EngineOutput) -> EngineOutput:
        if self._first is None:
            self._first = output.attribution[:1].copy()
        return EngineOutput(output.logits, np.repeat(self._first, len(output.logits), axis=0))


def with_weights(graph: Path, destination: Path, change: Callable[[np.ndarray], np.ndarray | None]) -> Path:
    """A copy of an ONNX file in which `change` replaced weights; it returns None for those that stay."""
    model = onnx.load(graph)
    for tensor in model.graph.initializer:
        array = numpy_helper.to_array(tensor)
        changed = change(array)
        if changed is not None:
            tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(changed.astype(array.dtype)), tensor.name))
    destination.write_bytes(model.SerializeToString())
    return destination


def on_classifier(
    classes: int, channels: int, change: Callable[[np.ndarray], np.ndarray]
) -> Callable[[np.ndarray], np.ndarray | None]:
    """A change of the classifier's weight [classes, channels], both where logits and where maps are made of it."""

    def apply(array: np.ndarray) -> np.ndarray | None:
        if array.shape == (classes, channels):
            return change(array)
        if array.shape == (classes + 1, channels):
            # The table of gradients: behind the classes stands a row of zeros, for no class.
            return np.concatenate([change(array[:classes]), array[classes:]])
        return change(array.T).T if array.shape == (channels, classes) else None

    return apply
