"""A sheet of samples that shows what a build is about at a glance."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from edgekit.bundle.golden import GoldenSet
from edgekit.errors import DefectError
from edgekit.metrics.agreement import score_agreement
from edgekit.report.images import enlarged, overlay
from edgekit.report.panels import Column, cosine_in_words, draw_columns

__all__ = ["comparison_sheet"]

_SIDE = 150


def comparison_sheet(
    golden: GoldenSet,
    engine_maps: npt.NDArray[np.float32],
    indices: Sequence[int],
    *,
    engine_class: npt.NDArray[np.int64] | None = None,
) -> bytes:
    """Teacher and engine together: one column a sample with its input, the teacher's map and the engine's.

    Args:
        golden: Images, and the teacher's answers and maps.
        engine_maps: float32 [N, h, w], the engine's maps of the teacher's top-1.
        indices: The samples to show, each from 0 to below N; at least one.
        engine_class: int64 [N], the engine's top-1, -1 for none; given, a prediction that flipped is told.

    Returns:
        A PNG on white. Over each column stands the teacher's class, under it the cosine of the two maps.

    Raises:
        DefectError: The maps are not the golden set's, or an index is out of range.
        UnavailableError: Pillow is not installed.
    """
    if engine_maps.shape != golden.maps.shape or not indices or not all(0 <= i < len(golden) for i in indices):
        raise DefectError(
            "A comparison sheet was asked of samples that are not there.",
            expected=f"maps {golden.maps.shape} and indices below {len(golden)}",
            found=f"maps {engine_maps.shape} and indices {list(indices)}",
        )
    chosen = np.asarray(indices)
    scores = score_agreement(golden.maps[chosen], engine_maps[chosen], ["cosine"])
    names = golden.card.classes
    columns = []
    for place, index in enumerate(indices):
        pixels = enlarged(golden.pixels[index], _SIDE)
        teacher = int(golden.teacher_class[index])
        answered = teacher if engine_class is None else int(engine_class[index])
        lines = [cosine_in_words(scores.states[place], float(scores.metrics["cosine"][place]))]
        if answered != teacher:
            lines.append(f"engine says {names[answered] if answered >= 0 else 'nothing'}")
        maps = (golden.maps[index], engine_maps[index])
        columns.append(Column(names[teacher], (pixels, *(overlay(pixels, values) for values in maps)), tuple(lines)))
    return draw_columns(columns, ("input", "teacher", "engine"))
