"""Why did the maps not match? Each known fault is undone on the engine's side; what restores the match is named.

A finding is a hint for a person and never changes a verdict: the verdict is computed from the scores alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from edgekit.bundle.golden import GoldenSet
from edgekit.engines.protocol import Runner
from edgekit.interface.card import InputSpec
from edgekit.metrics.agreement import score_agreement
from edgekit.metrics.scores import ScoreTable
from edgekit.verify.answers import EngineAnswers, answer_golden

__all__ = ["Finding", "diagnose"]

# A fault counts as found when undoing it closes at least this share of the gap to a perfect match.
_CLOSES = 0.5
_HEALTHY_COSINE = 0.98
_SAMPLES = 64
_SHIFTS = [(dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1) if (dy, dx) != (0, 0)]

Maps = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Finding:
    """One explanation of a mismatch.

    Attributes:
        fault: Short stable name, such as "map-shifted".
        text: What it means and what to look at, in a sentence.
        before: The measure named in the text, as it is.
        after: The same with the fault undone; equal to `before` where nothing can be undone.
    """

    fault: str
    text: str
    before: float
    after: float

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        return dict(vars(self))


def diagnose(
    golden: GoldenSet, answers: EngineAnswers, table: ScoreTable, runner: Runner | None
) -> tuple[Finding, ...]:
    """Look for known faults behind a mismatch, most convincing first; empty when maps and answers match.

    Args:
        golden: The golden set.
        answers: What the engine said.
        table: The scores of those answers.
        runner: The engine, to ask it again with differently prepared inputs; None leaves input faults out.
    """
    cosine = _mean_cosine(golden.maps, answers.maps)
    agreement = float(np.mean(table.agrees))
    if cosine >= _HEALTHY_COSINE and agreement >= _HEALTHY_COSINE:
        return ()
    findings = [*_map_faults(golden.maps, answers.maps, cosine), *_class_faults(golden, answers, agreement)]
    if runner is not None:
        findings += _input_faults(golden, runner)
    findings += _broken_values(table)
    findings.sort(key=lambda finding: finding.before - finding.after)
    return tuple(findings) or (_unexplained(golden, cosine, agreement),)


def _mean_cosine(teacher: Maps, engine: Maps) -> float:
    """Mean over the samples that can be compared; a map that vanished or is not finite counts with the worst value."""
    scores = score_agreement(np.ascontiguousarray(teacher), np.ascontiguousarray(engine), ["cosine"]).metrics["cosine"]
    comparable = ~np.isnan(scores)
    return float(np.mean(scores[comparable])) if comparable.any() else 0.0


def _closes(before: float, after: float) -> bool:
    return after - before > _CLOSES * (1 - before) and after - before > 0.02


def _map_transforms(shape: tuple[int, ...]) -> Iterator[tuple[str, str, Callable[[Maps], Maps]]]:
    if shape[1] == shape[2]:
        yield "map-transposed", "a transpose: rows and columns are exchanged", lambda maps: maps.transpose(0, 2, 1)
    yield "map-flipped", "a left-right flip", lambda maps: maps[:, :, ::-1]
    yield "map-flipped", "an upside-down flip", lambda maps: maps[:, ::-1, :]
    yield "sign-lost", "changing the sign: the ReLU acts on the negated map", lambda maps: np.maximum(-maps, 0)


def _map_faults(teacher: Maps, engine: Maps, before: float) -> list[Finding]:
    findings = []
    for fault, words, transform in _map_transforms(teacher.shape):
        after = _mean_cosine(teacher, transform(engine))
        if _closes(before, after):
            findings.append(Finding(fault, f"The maps match after {words}.", before, after))
    # Compared on the cells that both keep, since the row that a shift pushed out is gone.
    for dy, dx in _SHIFTS:
        kept, moved = _overlap(teacher, -dy, -dx), _overlap(engine, dy, dx)
        if min(kept.shape[1:]) < 1 or kept.shape[1] * kept.shape[2] < 4:
            continue
        after = _mean_cosine(kept, moved)
        if _closes(_mean_cosine(_overlap(teacher, dy, dx), _overlap(engine, dy, dx)), after) and after > before:
            direction = f"{dy:+d} rows and {dx:+d} columns"
            text = f"The maps match after moving the engine's back: they are shifted by {direction}."
            findings.append(Finding("map-shifted", text, before, after))
    return findings


def _overlap(maps: Maps, dy: int, dx: int) -> Maps:
    rows = slice(max(dy, 0), maps.shape[1] + min(dy, 0))
    columns = slice(max(dx, 0), maps.shape[2] + min(dx, 0))
    return maps[:, rows, columns]


def _class_faults(golden: GoldenSet, answers: EngineAnswers, before: float) -> list[Finding]:
    """Classes in another order: each of the engine's logit columns follows another column of the teacher's."""
    if not np.isfinite(answers.logits).all() or len(golden) < 2 * golden.logits.shape[1]:
        return []
    teacher = _standardised(golden.logits)
    engine = _standardised(answers.logits)
    matched = np.argmax(teacher.T @ engine, axis=0)
    if len(set(matched.tolist())) != len(matched) or (matched == np.arange(len(matched))).all():
        return []
    after = float(np.mean(matched[np.argmax(answers.logits, axis=1)] == golden.teacher_class))
    if not _closes(before, after):
        return []
    moved = next(column for column, source in enumerate(matched) if column != source)
    classes = golden.card.classes
    text = (
        "The predictions match after reordering the classes: the engine's output for "
        f"{classes[moved]!r} is the teacher's for {classes[matched[moved]]!r}."
    )
    return [Finding("class-order", text, before, after)]


def _standardised(logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    centred = logits.astype(np.float64) - logits.mean(axis=0, dtype=np.float64)
    scaled: npt.NDArray[np.float64] = centred / np.maximum(np.linalg.norm(centred, axis=0), 1e-12)
    return scaled


def _input_faults(golden: GoldenSet, runner: Runner) -> list[Finding]:
    """Ask again with inputs prepared in the other ways that are common, on the first samples."""
    part = replace(
        golden,
        pixels=golden.pixels[:_SAMPLES],
        labels=golden.labels[:_SAMPLES],
        logits=golden.logits[:_SAMPLES],
        maps=golden.maps[:_SAMPLES],
        names=golden.names[:_SAMPLES],
        masks=None,
    )
    before = _match(part, answer_golden(runner, part))
    findings = []
    for fault, words, spec in _other_preparations(golden.card.input):
        after = _match(part, answer_golden(runner, part, spec=spec))
        if _closes(before, after):
            text = f"Maps and predictions match when the inputs are prepared with {words}: {fault.replace('-', ' ')}?"
            findings.append(Finding(fault, text, before, after))
    return findings


def _match(golden: GoldenSet, answers: EngineAnswers) -> float:
    agreement = float(np.mean(np.argmax(np.nan_to_num(answers.logits), axis=1) == golden.teacher_class))
    return 0.5 * (agreement + _mean_cosine(golden.maps, answers.maps))


def _other_preparations(spec: InputSpec) -> Iterator[tuple[str, str, InputSpec]]:
    swapped = replace(
        spec,
        channel_order="BGR" if spec.channel_order == "RGB" else "RGB",
        mean=spec.mean[::-1],
        std=spec.std[::-1],
    )
    yield "input-channel-order", "red and blue exchanged", swapped
    imagenet = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    zero, one, half = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0), (0.5, 0.5, 0.5)
    for words, divisor, mean, std in (
        ("values in 0..1 and no mean or std", 255.0, zero, one),
        ("values in 0..255 and no mean or std", 1.0, zero, one),
        ("values in -1..1", 255.0, half, half),
        ("the mean and std of ImageNet", 255.0, *imagenet),
        ("the mean of ImageNet and no std", 255.0, imagenet[0], one),
    ):
        other = replace(spec, divisor=divisor, mean=mean, std=std)
        if other != spec:
            yield "input-mean-std", words, other


def _broken_values(table: ScoreTable) -> list[Finding]:
    findings = []
    for state, fault, words in (
        ("non_finite", "map-not-finite", "hold NaN or infinite values"),
        ("one_zero", "map-vanished", "are empty on one side only"),
    ):
        share = table.state.count(state) / len(table)
        if share > 0.01:
            findings.append(Finding(fault, f"{share:.1%} of the maps {words}.", share, share))
    return findings


def _unexplained(golden: GoldenSet, cosine: float, agreement: float) -> Finding:
    classes = len(golden.card.classes)
    counts = np.bincount(golden.teacher_class, minlength=classes) / len(golden)
    chance = float(np.max(counts))
    if agreement < 0.5 * (1 + chance) and agreement < 2 * chance:
        return Finding(
            "answers-unrelated",
            f"The predictions agree no better than guessing ({agreement:.1%}, chance {chance:.1%}): the head is "
            "random, its channels are out of order, or the engine belongs to another model.",
            agreement,
            agreement,
        )
    return Finding(
        "maps-drifted",
        f"Predictions agree on {agreement:.1%} but the maps' mean cosine is {cosine:.3f}, and no layout or input fault "
        "explains it: compression moved the maps. Prune less, or raise compress.matching.beta.",
        cosine,
        cosine,
    )
