"""The engine's answers to a golden set, in batches, so that memory holds answers and never the whole input."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgekit.attribution.spec import OWN_CLASS
from edgekit.bundle.golden import GoldenSet
from edgekit.core.progress import NULL_OBSERVER, Observer
from edgekit.engines.protocol import EngineOutput, Runner
from edgekit.errors import IntegrityError
from edgekit.interface.card import InputSpec
from edgekit.interface.preprocess import preprocess

__all__ = ["EngineAnswers", "answer_golden"]

_BATCH = 16


@dataclass(frozen=True)
class EngineAnswers:
    """What an engine said about every golden sample.

    Attributes:
        logits: float32 [N, classes].
        maps: float32 [N, h, w], the engine's map of the TEACHER's top-1, so that a flipped prediction and a moved map
            are told apart.
        own_maps: float32 [N, h, w], the engine's map of its own top-1, as it explains itself when deployed.
        further: The engine's other maps of the teacher's classes, float32 [N, h, w] each, in the order of the golden
            set's.
        own_further: The same of the engine's own answers.
    """

    logits: npt.NDArray[np.float32]
    maps: npt.NDArray[np.float32]
    own_maps: npt.NDArray[np.float32]
    further: tuple[npt.NDArray[np.float32], ...] = ()
    own_further: tuple[npt.NDArray[np.float32], ...] = ()


def answer_golden(
    runner: Runner, golden: GoldenSet, observer: Observer = NULL_OBSERVER, *, spec: InputSpec | None = None
) -> EngineAnswers:
    """Run an engine over a golden set.

    Args:
        runner: The opened engine.
        golden: Inputs and the teacher's classes.
        observer: Told about progress.
        spec: How to prepare the pixels; the card's unless a diagnosis asks what another preparation would give.

    Raises:
        IntegrityError: The engine's outputs have other shapes than the teacher's.
    """
    spec = spec or golden.card.input
    wanted = golden.explained_classes
    parts: list[tuple[EngineOutput, EngineOutput]] = []
    for start in range(0, len(golden), _BATCH):
        observer.advanced("golden samples", start, len(golden))
        images = preprocess(golden.pixels[start : start + _BATCH], spec)
        part = wanted[start : start + _BATCH]
        asked = runner.run(images, part[:, 0] if part.shape[1] == 1 else part)
        free = runner.run(images, np.full(len(images), OWN_CLASS, dtype=np.int32))
        for output in (asked, free):
            _check_shapes(output, golden, len(images))
        parts.append((asked, free))
    observer.advanced("golden samples", len(golden), len(golden))
    return EngineAnswers(
        logits=np.concatenate([free.logits for _, free in parts]),
        maps=np.concatenate([asked.attribution for asked, _ in parts]),
        own_maps=np.concatenate([free.attribution for _, free in parts]),
        further=_joined([asked.further for asked, _ in parts]),
        own_further=_joined([free.further for _, free in parts]),
    )


def _joined(parts: list[tuple[npt.NDArray[np.float32], ...]]) -> tuple[npt.NDArray[np.float32], ...]:
    return tuple(np.concatenate(view) for view in zip(*parts, strict=True))


def _check_shapes(output: EngineOutput, golden: GoldenSet, count: int) -> None:
    sizes = [(view.spec.height, view.spec.width) for view in golden.map_spec.views]
    expected = [(count, golden.logits.shape[1]), *((count, *size) for size in sizes)]
    found = [output.logits.shape, output.attribution.shape, *(maps.shape for maps in output.further)]
    if found != expected:
        raise IntegrityError(
            "The engine does not answer in the shapes of the golden set.",
            expected=f"logits {list(expected[0])}, attribution {', '.join(str(list(size)) for size in expected[1:])}",
            found=f"logits {list(found[0])}, attribution {', '.join(str(list(size)) for size in found[1:])}",
            hint="engine and golden set come from different builds",
        )
