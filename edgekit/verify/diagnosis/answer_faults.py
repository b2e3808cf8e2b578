"""Faults of the classes: logits in another order, and maps of another class than was asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from edgekit.bundle.golden import GoldenSet
from edgekit.engines.protocol import Runner
from edgekit.verify.answers import EngineAnswers
from edgekit.verify.diagnosis.finding import Finding, closes, mean_cosine
from edgekit.verify.diagnosis.suspect import Suspect

__all__ = ["find_class_index_fault", "find_class_order_fault"]

# Of more classes only the neighbours are asked for: every question costs a pass over the part.
_CLASSES = 16
# Another class's map is a match, or merely less far off than the class asked for.
_SAME_MAPS = 0.9
_COMPLEMENTS = 2
_TWO = " Of two classes one may be the other with its sign turned, so a lost sign looks the same: look there, too."


def find_class_order_fault(golden: GoldenSet, answers: EngineAnswers) -> list[Finding]:
    """Classes in another order: each of the engine's logit columns follows another column of the teacher's."""
    if not np.isfinite(answers.logits).all() or len(golden) < 2 * golden.logits.shape[1]:
        return []
    matched = np.argmax(_standardised(golden.logits).T @ _standardised(answers.logits), axis=0)
    if len(set(matched.tolist())) != len(matched) or (matched == np.arange(len(matched))).all():
        return []
    top = np.argmax(answers.logits, axis=1)
    # The engine's map of its own answer is the teacher's wherever classes only have other places; where red and blue
    # were exchanged, say, predictions may look reordered while the maps tell otherwise.
    cosine = mean_cosine(golden.maps, answers.own_maps)
    before = 0.5 * (float(np.mean(top == golden.teacher_class)) + cosine)
    after = 0.5 * (float(np.mean(matched[top] == golden.teacher_class)) + cosine)
    if not closes(before, after):
        return []
    moved = next(column for column, source in enumerate(matched) if column != source)
    classes = golden.card.classes
    text = (
        "Predictions and maps match after reordering the classes: the engine's output for "
        f"{classes[moved]!r} is the teacher's for {classes[matched[moved]]!r}."
    )
    return [Finding("class-order", text, before, after)]


def _standardised(logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    centred = logits.astype(np.float64) - logits.mean(axis=0, dtype=np.float64)
    scaled: npt.NDArray[np.float64] = centred / np.maximum(np.linalg.norm(centred, axis=0), 1e-12)
    return scaled


def find_class_index_fault(suspect: Suspect) -> list[Finding]:
    """Maps of another class: what was asked for as one class is the teacher's map of another."""
    golden, runner = suspect.part, suspect.runner
    classes = golden.logits.shape[1]
    if runner is None:
        return []
    asked = {offset: _maps_of(suspect, runner, offset) for offset in _offsets(classes)}
    before = mean_cosine(golden.maps, asked[0])
    offset = max(asked, key=lambda one: mean_cosine(golden.maps, asked[one]))
    after = mean_cosine(golden.maps, asked[offset])
    names = golden.card.classes
    if offset and closes(before, after) and after >= _SAME_MAPS:
        first = int(golden.teacher_class[0])
        text = (
            f"The maps match when the class that is asked for is moved on by {offset:+d}: the engine's map of "
            f"{names[(first + offset) % classes]!r} is the teacher's of {names[first]!r}. A class index is off by "
            f"{abs(offset)}, as with a background class that only one side counts."
            f"{_TWO if classes == _COMPLEMENTS else ''}"
        )
        return [Finding("map-of-another-class", text, before, after)]
    return _exchanged(golden, asked, before) if len(asked) == classes else []


def _offsets(classes: int) -> list[int]:
    """How far to move the class that is asked for: by every distance where classes are few, else by one."""
    return [0, 1, -1] if classes > _CLASSES else [0, *range(1, classes)]


def _exchanged(golden: GoldenSet, asked: Mapping[int, npt.NDArray[np.float32]], before: float) -> list[Finding]:
    """Each of the teacher's classes is another one of the engine's."""
    classes, own = golden.logits.shape[1], golden.teacher_class
    best, maps = {}, np.zeros_like(golden.maps)
    for present in np.unique(own).tolist():
        rows = own == present
        offset = max(asked, key=lambda one: mean_cosine(golden.maps[rows], asked[one][rows]))
        best[present], maps[rows] = (present + offset) % classes, asked[offset][rows]
    after = mean_cosine(golden.maps, maps)
    if len(set(best.values())) != len(best) or not closes(before, after) or after < _SAME_MAPS:
        return []
    moved = next(present for present, index in best.items() if present != index)
    names = golden.card.classes
    text = (
        "The maps match when another class is asked for: the engine's map of "
        f"{names[best[moved]]!r} is the teacher's of {names[moved]!r}."
    )
    return [Finding("map-of-another-class", text, before, after)]


def _maps_of(suspect: Suspect, runner: Runner, offset: int) -> npt.NDArray[np.float32]:
    # What is asked for is the teacher's class, so a teacher is made up whose answers lie `offset` further on.
    part = suspect.part
    return suspect.ask(runner, replace(part, logits=np.roll(part.logits, offset, axis=1))).maps
