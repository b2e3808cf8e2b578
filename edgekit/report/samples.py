"""Single samples: what is known of each as JSON, and its pictures."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgekit.attribution.normalise import unit_max
from edgekit.bundle.golden import GoldenSet
from edgekit.interface.card import ModelCard
from edgekit.metrics.classification import sigmoid, softmax
from edgekit.report.costs import finite_or_none
from edgekit.report.data import ReportData
from edgekit.report.images import data_uri, difference_overlay, enlarged, outlined, overlay
from edgekit.report.selection import SampleSelection

__all__ = ["Tile", "describe_samples", "difference_in_words", "draw_tiles", "place_in_words", "probabilities"]

# Sides of a picture in the page, in pixels: what is smaller is enlarged to the first, what is larger shrunk to the
# second. Pictures that do not compress would make the page too large; then all are drawn at the next size.
_SIDES = ((224, 256), (160, 192), (96, 128))
_MOST_CHARACTERS = 3_500_000
# Of a map's largest value: less is not seen as a difference.
_ALIKE = 0.05


def probabilities(logits: npt.NDArray[np.float32], card: ModelCard) -> npt.NDArray[np.float64]:
    """Probabilities float64 [N, classes] by the card's task; NaN in rows whose logits are not finite."""
    return softmax(logits) if card.task == "softmax" else sigmoid(logits)


def describe_samples(data: ReportData, selection: SampleSelection) -> dict[str, Any]:
    """The selection and every sample that is shown, JSON-ready.

    Returns:
        "ranked_by", "worst", "typical", "wrong_evidence" (indices), "wrong_evidence_total" with its share, and
        "shown": index as text to what is known of the sample.
    """
    count = len(data.table)
    teacher = probabilities(data.golden.logits, data.golden.card)
    engine = None if data.engine_logits is None else probabilities(data.engine_logits, data.golden.card)
    return {
        "ranked_by": selection.metric,
        "worst": list(selection.worst),
        "typical": list(selection.typical),
        "wrong_evidence": list(selection.wrong_evidence),
        "wrong_evidence_total": {
            "count": selection.wrong_evidence_count,
            "share": selection.wrong_evidence_count / count if count else None,
        },
        "shown": {str(index): _describe(data, index, teacher, engine) for index in selection.pictured},
    }


def _describe(
    data: ReportData, index: int, teacher: npt.NDArray[np.float64], engine: npt.NDArray[np.float64] | None
) -> dict[str, Any]:
    table, golden = data.table, data.golden
    teacher_class, engine_class = int(table.teacher_class[index]), int(table.engine_class[index])
    label = int(table.label[index])
    return {
        "index": index,
        "name": golden.names[index],
        "sha256": table.sample[index],
        "label": None if label < 0 else golden.card.classes[label],
        "state": table.state[index],
        "agrees": bool(table.agrees[index]),
        "teacher": {
            "class": golden.card.classes[teacher_class],
            "probability": finite_or_none(teacher[index, teacher_class]),
        },
        "engine": {
            "class": None if engine_class < 0 else golden.card.classes[engine_class],
            "probability": None if engine is None or engine_class < 0 else finite_or_none(engine[index, engine_class]),
        },
        "metrics": {name: finite_or_none(values[index]) for name, values in sorted(table.metrics.items())},
        "own_class_metrics": {
            name: finite_or_none(values[index]) for name, values in sorted(table.own_class_metrics.items())
        },
    }


@dataclass(frozen=True)
class Tile:
    """One picture of a sample.

    Attributes:
        kind: "input", "teacher", "engine", "difference" or "own".
        uri: The image as a data URI.
        width: Pixels.
        height: Pixels.
        alt: What the picture shows, in words.
    """

    kind: str
    uri: str
    width: int
    height: int
    alt: str


def draw_tiles(data: ReportData, indices: Iterable[int]) -> dict[int, tuple[Tile, ...]]:
    """Input, teacher's map, engine's map and their difference; the map of the engine's own class where that differs.

    All samples' pictures are of the largest size at which the page stays small enough to be sent around.
    """
    chosen = tuple(indices)
    drawn: dict[int, tuple[Tile, ...]] = {}
    for shortest, longest in _SIDES:
        drawn = {index: _tiles(data, index, shortest, longest) for index in chosen}
        if sum(len(tile.uri) for tiles in drawn.values() for tile in tiles) <= _MOST_CHARACTERS:
            break
    return drawn


def _tiles(data: ReportData, index: int, shortest: int, longest: int) -> tuple[Tile, ...]:
    golden = data.golden
    name, pixels = golden.names[index], enlarged(golden.pixels[index], shortest)
    teacher, engine = golden.maps[index], data.engine_maps[index]
    label = int(golden.labels[index])
    shows = "" if label < 0 else f", labelled {golden.card.classes[label]}"
    pictures = [
        ("input", _with_mask(golden, index, pixels, shortest), f"Input image {name}{shows}."),
        ("teacher", overlay(pixels, teacher), f"The teacher's map over {name}: {place_in_words(teacher)}."),
        ("engine", overlay(pixels, engine), f"The engine's map of the same class: {place_in_words(engine)}."),
        (
            "difference",
            difference_overlay(pixels, teacher, engine),
            f"Difference of the two maps: {difference_in_words(teacher, engine)}.",
        ),
    ]
    if not data.table.agrees[index]:
        own = data.own_maps[index]
        pictures.append(
            ("own", overlay(pixels, own), f"The engine's map of the class it answers itself: {place_in_words(own)}.")
        )
    height, width = pixels.shape[:2]
    scale = min(1.0, longest / max(height, width))
    return tuple(
        Tile(kind, data_uri(picture, longest), round(width * scale), round(height * scale), alt)
        for kind, picture, alt in pictures
    )


def _with_mask(golden: GoldenSet, index: int, pixels: npt.NDArray[np.uint8], shortest: int) -> npt.NDArray[np.uint8]:
    if golden.masks is None or not golden.masks[index].any():
        return pixels
    return outlined(pixels, enlarged(golden.masks[index], shortest))


def place_in_words(values: npt.NDArray[np.floating[Any]]) -> str:
    """Where a map is strongest, for those who do not see it: "strongest in the upper left"."""
    if not np.isfinite(values).all():
        return "it holds values that are not finite"
    if not (values > 0).any():
        return "it is empty"
    return f"strongest in the {_place(values)}"


def difference_in_words(teacher: npt.NDArray[np.floating[Any]], engine: npt.NDArray[np.floating[Any]]) -> str:
    """Where an engine's map is above and below the teacher's most, each divided by its own largest value."""
    if not (np.isfinite(teacher).all() and np.isfinite(engine).all()):
        return "one of them holds values that are not finite"
    above = np.clip(unit_max(engine[None])[0], 0, None) - np.clip(unit_max(teacher[None])[0], 0, None)
    told = [
        f"{more} in the {_place(values)}"
        for more, values in (("more", above), ("less", -above))
        if (values > _ALIKE).any()
    ]
    return f"the engine looks {' and '.join(told)}" if told else "they are alike"


def _place(values: npt.NDArray[np.floating[Any]]) -> str:
    row, column = np.unravel_index(int(np.argmax(values)), values.shape)
    vertical = ("upper", "", "lower")[min(2, int(3 * (row + 0.5) / values.shape[0]))]
    horizontal = ("left", "", "right")[min(2, int(3 * (column + 0.5) / values.shape[1]))]
    if not vertical and not horizontal:
        return "centre"
    return f"{vertical} {horizontal}" if vertical and horizontal else f"{vertical or horizontal} middle"
