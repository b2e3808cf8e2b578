"""One image explained: where the engine looked, and where the teacher did."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from edgekit.errors import IntegrityError
from edgekit.metrics.agreement import score_agreement
from edgekit.report.images import enlarged, overlay
from edgekit.report.numbers import format_number
from edgekit.report.panels import Column, cosine_in_words, draw_columns

__all__ = ["explain_overlay"]

_SIDE = 320


def explain_overlay(
    pixels: npt.NDArray[np.uint8],
    attribution: npt.NDArray[np.floating[Any]],
    *,
    class_name: str,
    probability: float | None,
    teacher_map: npt.NDArray[np.floating[Any]] | None = None,
    further: Mapping[str, npt.NDArray[np.floating[Any]]] | None = None,
) -> bytes:
    """Draw an image, the engine's map over it, and between them the teacher's where it is known.

    Args:
        pixels: uint8 [H, W, 3], RGB.
        attribution: Floating [h, w], the engine's raw map of `class_name`.
        class_name: The class that is explained.
        probability: The engine's, of that class, 0 to 1; None leaves it out.
        teacher_map: Floating [h, w], the teacher's raw map of the same class; None where it is not known.
        further: What another map of the engine is to its floating [h, w], for engines with several.

    Returns:
        A PNG on white. Under the engine's map stand the class, its probability, and the cosine of the two maps.

    Raises:
        IntegrityError: The two maps are of different shapes, so engine and golden set are of different builds.
        UnavailableError: Pillow is not installed.
    """
    large = enlarged(pixels, _SIDE)
    columns = [Column("input", (large,))]
    lines = [class_name]
    if probability is not None:
        # The font that Pillow brings has no narrow space.
        lines.append(f"probability {format_number(probability, 'share')}".replace("\u202f", " "))
    if teacher_map is not None:
        if teacher_map.shape != attribution.shape:
            raise IntegrityError(
                "The maps of teacher and engine have different shapes.",
                expected=str(list(teacher_map.shape)),
                found=str(list(attribution.shape)),
            )
        scores = score_agreement(teacher_map[None], attribution[None], ["cosine"])
        lines.append(cosine_in_words(scores.states[0], float(scores.metrics["cosine"][0])))
        columns.append(Column("teacher", (overlay(large, teacher_map),), (class_name,)))
    columns.append(Column("engine", (overlay(large, attribution),), tuple(lines)))
    for name, values in (further or {}).items():
        columns.append(Column("engine", (overlay(large, values),), tuple(name.split(", "))))
    return draw_columns(columns)
