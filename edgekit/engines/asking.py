"""What every runner does with what it is asked, whatever runtime is behind it: checks, columns of classes, parts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from edgekit.attribution.spec import NO_CLASS, OWN_CLASS, output_name
from edgekit.engines.protocol import EngineOutput
from edgekit.errors import BadInputError

__all__ = ["LOGITS", "asked_classes", "check_classes", "check_images", "engine_output", "expected_outputs"]

LOGITS = "logits"
"""Name of the output with the answers; those with maps are named by `output_name`."""


def expected_outputs(count: int) -> list[str]:
    """Names, in their order, of the outputs of an explained graph that has `count` of them."""
    return [LOGITS, *(output_name(tap) for tap in range(max(1, count - 1)))]


def check_images(images: npt.NDArray[np.float32], shape: tuple[int, ...]) -> None:
    """Raise `BadInputError` unless these are float32 [N, *shape]."""
    if images.dtype != np.float32 or tuple(images.shape[1:]) != shape:
        raise BadInputError(
            "A batch does not fit the engine.",
            expected=f"float32 [N, {', '.join(map(str, shape))}]",
            found=f"{images.dtype} {list(images.shape)}",
            hint="prepare images with edgekit.interface.preprocess and the bundle's model card; another size needs "
            "another engine",
        )


def asked_classes(class_index: npt.NDArray[np.int32], count: int, columns: int | None) -> npt.NDArray[np.int32]:
    """Classes as the engine's input takes them: int32 [N], or [N, columns] for maps of several classes.

    Given [N], an engine with maps of several classes explains its own answers besides.

    Raises:
        BadInputError: Another type or shape.
    """
    shapes = [(count,)] if columns is None else [(count,), (count, columns)]
    if class_index.dtype != np.int32 or class_index.shape not in shapes:
        raise BadInputError(
            "class_index does not fit the batch.",
            expected="int32 " + " or ".join(str(list(shape)) for shape in shapes),
            found=f"{class_index.dtype} {list(class_index.shape)}",
            hint=f"give one class an image, {OWN_CLASS} for the engine's own answer",
        )
    if columns is None or class_index.ndim == 2:
        return class_index
    asked = np.full((count, columns), OWN_CLASS, dtype=np.int32)
    asked[:, 0] = class_index
    return asked


def check_classes(asked: npt.NDArray[np.int32], classes: int) -> None:
    """A class that does not exist has an empty map in the graph, which must not be taken for an answer."""
    strange = (asked < OWN_CLASS) | ((asked >= classes) & (asked != NO_CLASS))
    if strange.any():
        raise BadInputError(
            "A map was asked for a class that the engine does not have.",
            expected=f"class indices below {classes}, or {OWN_CLASS} for the engine's own answer",
            found=str(int(asked[strange][0])),
            hint="classes are counted from 0, in the order of the model card",
        )


def engine_output(
    parts: Sequence[Sequence[npt.NDArray[np.float32]]], asked: npt.NDArray[np.int32], columns: int | None
) -> EngineOutput:
    """The answer to a batch that was run in parts.

    Args:
        parts: For each run its outputs, logits first.
        asked: What `asked_classes` gave.
        columns: Classes an image gets maps of; None where the maps have no axis for them.

    Raises:
        BadInputError: A class was asked for that does not exist.
    """
    logits, *maps = parts[0] if len(parts) == 1 else (np.concatenate(output) for output in zip(*parts, strict=True))
    check_classes(asked, logits.shape[1])
    if columns is not None:
        maps = [tap[:, column] for tap in maps for column in range(columns)]
    return EngineOutput(logits, maps[0], tuple(maps[1:]))
