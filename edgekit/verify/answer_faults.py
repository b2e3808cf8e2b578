"""Faults of the classes: logits in another order, and maps of another class than was asked for."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from edgekit.bundle.golden import GoldenSet
from edgekit.engines.protocol import Runner
from edgekit.verify.answers import EngineAnswers, answer_golden
from edgekit.verify.finding import Finding, closes, mean_cosine

__all__ = ["find_class_index_fault", "find_class_order_fault"]

# Every class is asked for once, so only networks with a few of them are looked at.
_CLASSES = 16


def find_class_order_fault(
    golden: GoldenSet, answers: EngineAnswers, rows: npt.NDArray[np.intp] | None = None
) -> list[Finding]:
    """Classes in another order: each of the engine's logit columns follows another column of the teacher's.

    Args:
        golden: The golden set.
        answers: What the engine said.
        rows: Samples whose maps are looked at; all of them unless given.
    """
    if not np.isfinite(answers.logits).all() or len(golden) < 2 * golden.logits.shape[1]:
        return []
    matched = np.argmax(_standardised(golden.logits).T @ _standardised(answers.logits), axis=0)
    if len(set(matched.tolist())) != len(matched) or (matched == np.arange(len(matched))).all():
        return []
    top = np.argmax(answers.logits, axis=1)
    # The engine's map of its own answer is the teacher's wherever classes only have other places; where red and blue
    # were exchanged, say, predictions may look reordered while the maps tell otherwise.
    if rows is None:
        rows = np.arange(len(golden))
    cosine = mean_cosine(golden.maps[rows], answers.own_maps[rows])
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


def find_class_index_fault(golden: GoldenSet, runner: Runner) -> list[Finding]:
    """Maps of another class: what was asked for as one class is the teacher's map of another.

    Args:
        golden: A part of the golden set that is small enough to be answered once for every class.
        runner: The engine.
    """
    classes = golden.logits.shape[1]
    if classes > _CLASSES:
        return []
    teacher_class = golden.teacher_class
    maps = [_maps_of(golden, runner, index) for index in range(classes)]
    asked = np.stack(maps)[teacher_class, np.arange(len(golden))]
    before = mean_cosine(golden.maps, asked)
    best = {}
    for present in np.unique(teacher_class).tolist():
        rows = teacher_class == present
        best[present] = int(np.argmax([mean_cosine(golden.maps[rows], one[rows]) for one in maps]))
    after = mean_cosine(
        golden.maps, np.stack(maps)[[best[one] for one in teacher_class.tolist()], np.arange(len(golden))]
    )
    if len(set(best.values())) != len(best) or not closes(before, after):
        return []
    moved = next(present for present, index in best.items() if present != index)
    names = golden.card.classes
    text = (
        "The maps match when another class is asked for: the engine's map of "
        f"{names[best[moved]]!r} is the teacher's of {names[moved]!r}."
    )
    return [Finding("map-of-another-class", text, before, after)]


def _maps_of(golden: GoldenSet, runner: Runner, index: int) -> npt.NDArray[np.float32]:
    # What is asked for is the teacher's class, so a teacher is made up that always answers `index`.
    logits = np.zeros_like(golden.logits)
    logits[:, index] = 1
    return answer_golden(runner, replace(golden, logits=logits)).maps
