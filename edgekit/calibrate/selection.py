"""Which images of a folder calibrate: classes in turns, and within a class images whose maps differ.

Only what a choice is made from is kept of a candidate (its shrunk map and what the network answered), so memory grows
by a few kilobytes an image, and never by activations.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgekit.attribution.spec import OWN_CLASS
from edgekit.calibrate.graph import CLASS_INDEX, IMAGE, LOGITS, ExplainedGraph, read_graph
from edgekit.calibrate.options import CalibrateOptions
from edgekit.calibrate.runtime import open_session, run_session
from edgekit.core.progress import NULL_OBSERVER, Observer
from edgekit.errors import BadInputError
from edgekit.images.imageset import ImageItem, select_balanced
from edgekit.images.views import ImageView
from edgekit.interface.batches import filled
from edgekit.interface.card import InputSpec

__all__ = ["ChosenImage", "farthest_in_turns", "select_diverse", "select_images"]

_BATCH = 16
# Maps are compared in at most this many cells a side: those of last stages whole, those of the input by their means.
_CELLS = 16
_DECIMALS = 9


@dataclass(frozen=True)
class ChosenImage:
    """A calibration image and what was known of it when it was chosen.

    Attributes:
        item: The image.
        group: The class that it was chosen for: its label, or the FP32 graph's answer where it has none; None where
            nothing asked.
        confidence: Probability that the FP32 graph gives its answer; None where it was not asked.
        distance: To the nearest image of its class that was chosen before it, at least 0; None for the first one of a
            class, and where nothing was compared.
        why: The reason, for people.
    """

    item: ImageItem
    group: int | None
    confidence: float | None
    distance: float | None
    why: str


def select_images(
    items: Sequence[ImageItem],
    graph: Path,
    spec: InputSpec,
    options: CalibrateOptions,
    *,
    seed: int = 0,
    observer: Observer = NULL_OBSERVER,
) -> tuple[ChosenImage, ...]:
    """Choose `options.images` calibration images as `options.selection` says.

    Args:
        items: The images, labelled or not.
        graph: File of the explained FP32 graph; read only where maps are looked at.
        spec: How images become its input.
        options: How many, how, and from how many candidates.
        seed: Of the draw.
        observer: Told of the progress.

    Raises:
        EdgekitError: As `read_graph` and `select_diverse`.
    """
    if options.selection == "diverse":
        explained = read_graph(graph)
        return select_diverse(items, explained, spec, options.images, pool=options.pool, seed=seed, observer=observer)
    chosen = select_balanced(items, options.images, seed)
    return tuple(ChosenImage(item, item.label, None, None, _turn_of(item)) for item in chosen)


def _turn_of(item: ImageItem) -> str:
    return "drawn" if item.label is None else f"drawn in turn for class {item.label}"


def select_diverse(  # noqa: PLR0913 - the rarer part by keyword
    items: Sequence[ImageItem],
    graph: ExplainedGraph,
    spec: InputSpec,
    count: int,
    *,
    pool: int = 4,
    seed: int = 0,
    observer: Observer = NULL_OBSERVER,
) -> tuple[ChosenImage, ...]:
    """Choose calibration images by class balance first, then by the diversity of their maps.

    A pool of `pool * count` candidates is drawn balanced, and copies of one file count once. The FP32 graph answers and
    explains each. Then classes take turns, and each gives the candidate that is farthest from what it gave before:
    greedy k-centre (Gonzalez 1985), within a factor of two of the best cover. A class begins with the candidate that is
    nearest to the mean of its candidates. The distance is Euclidean over maps of unit length and confidence.

    Args:
        items: The images, labelled or not.
        graph: The explained FP32 graph.
        spec: How images become its input.
        count: How many; 0, or as many as there are, for all of them, and then nothing is computed.
        pool: Candidates for each image chosen, at least 1.
        seed: Of the draw of candidates.
        observer: Told of the progress.

    Returns:
        The choice, in the order in which it was made; the same for the same files whatever their order and names.

    Raises:
        BadInputError: An image does not fit the graph, or the graph's answers to it are not finite.
        UnavailableError: ONNX Runtime is not here or failed.
    """
    single = tuple({item.digest: item for item in select_balanced(items, 0, seed)}.values())
    if count == 0 or count >= len(single):
        return tuple(ChosenImage(item, item.label, None, None, "all images were taken") for item in single)
    candidates = single[: pool * count]
    seen = _answers(candidates, graph, spec, observer)
    groups = np.array(
        [answer if item.label is None else item.label for item, answer in zip(candidates, seen.classes, strict=True)]
    )
    chosen = farthest_in_turns(seen.features, groups, count)
    return tuple(_described(candidates[place], int(groups[place]), seen, place, away) for place, away in chosen)


def _described(item: ImageItem, group: int, seen: _Seen, place: int, distance: float | None) -> ChosenImage:
    why = f"nearest to the mean of class {group}"
    if distance is not None:
        why = f"farthest within class {group}, by {distance:.4f}"
    return ChosenImage(item, group, float(seen.confidence[place]), distance, why)


def farthest_in_turns(
    features: npt.NDArray[np.float32], groups: npt.NDArray[np.int64], count: int
) -> list[tuple[int, float | None]]:
    """Choose rows, the groups taking turns, each time the row that is farthest from the chosen ones of its group.

    Args:
        features: float32 [N, D].
        groups: int64 [N].
        count: How many rows, at most N.

    Returns:
        Row and its distance to the nearest chosen row of its group at that moment, None for the first of a group. In a
        turn the groups come in ascending order; a last turn that not all can take part in goes to those that have the
        farthest rows.
    """
    places = {int(group): np.flatnonzero(groups == group) for group in np.unique(groups)}
    nearest = {group: np.full(len(rows), np.inf) for group, rows in places.items()}
    chosen: list[tuple[int, float | None]] = []
    turn = 0
    while len(chosen) < count:
        waiting = [group for group, rows in places.items() if turn < len(rows)]
        proposals = {group: _proposal(features[places[group]], nearest[group], first=turn == 0) for group in waiting}
        left = count - len(chosen)
        if turn > 0 and left < len(waiting):
            waiting = sorted(sorted(waiting, key=lambda group: -nearest[group][proposals[group]])[:left])
        for group in waiting[:left]:
            row = proposals[group]
            chosen.append((int(places[group][row]), None if turn == 0 else float(nearest[group][row])))
            away = _distances(features[places[group]], features[places[group][row]])
            nearest[group] = np.minimum(nearest[group], away)
            # Chosen once: rows that are equal to it have distance 0 and still come after all others.
            nearest[group][row] = -1.0
        turn += 1
    return chosen


def _proposal(features: npt.NDArray[np.float32], nearest: npt.NDArray[np.float64], *, first: bool) -> int:
    if first:
        return int(_distances(features, features.mean(axis=0, dtype=np.float64)).argmin())
    return int(nearest.argmax())


def _distances(rows: npt.NDArray[np.float32], centre: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Float64 [N], rounded: what is equally far but for the order of a sum is equally far, on every processor."""
    away: npt.NDArray[np.float64] = np.linalg.norm(rows - centre.astype(np.float64), axis=1).round(_DECIMALS)
    return away


@dataclass(frozen=True)
class _Seen:
    """What the FP32 graph says of candidates: features [N, D], classes int64 [N], confidence float64 [N]."""

    features: npt.NDArray[np.float32]
    classes: npt.NDArray[np.int64]
    confidence: npt.NDArray[np.float64]


def _answers(items: Sequence[ImageItem], graph: ExplainedGraph, spec: InputSpec, observer: Observer) -> _Seen:
    if (3, spec.height, spec.width) != graph.input_shape:
        raise BadInputError(
            "The images' size is not that of the graph.",
            expected=str(list(graph.input_shape)),
            found=str([3, spec.height, spec.width]),
        )
    session = open_session(graph.model)
    outputs = [value.name for value in graph.model.graph.output]
    size = graph.batch or _BATCH
    parts: list[tuple[npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[Any]]] = []
    observer.advanced("calibrate: candidates", 0, len(items))
    for start in range(0, len(items), size):
        batch = items[start : start + size]
        images = next(ImageView(batch).prepared(spec).batches(size))
        own = np.full(len(batch), OWN_CLASS, dtype=np.int32)
        feeds = {IMAGE: filled(images, graph.batch), CLASS_INDEX: filled(own, graph.batch)}
        answer = {name: values[: len(batch)] for name, values in run_session(session, outputs, feeds).items()}
        _check_finite(answer, batch)
        confidence = _confidence(answer[LOGITS])
        maps = [answer[name] for name in outputs if name != LOGITS]
        parts.append((_features(maps, confidence), answer[LOGITS].argmax(axis=1), confidence))
        observer.advanced("calibrate: candidates", start + len(batch), len(items))
    features, classes, confidence = (np.concatenate(column) for column in zip(*parts, strict=True))
    return _Seen(features, classes.astype(np.int64), confidence)


def _check_finite(answer: dict[str, npt.NDArray[np.float32]], batch: Sequence[ImageItem]) -> None:
    for name, values in answer.items():
        bad = np.flatnonzero(~np.isfinite(values.reshape(len(batch), -1)).all(axis=1))
        if len(bad):
            raise BadInputError(
                "The FP32 graph's answer to a candidate for calibration is not finite.",
                where=f"{name!r} of {batch[bad[0]].name}",
                expected="finite values",
                hint="check the weights for NaN or overflow and the images' normalisation",
            )


def _confidence(logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    best: npt.NDArray[np.float64] = 1.0 / np.exp(shifted).sum(axis=1)
    return best


def _features(maps: Sequence[npt.NDArray[np.float32]], confidence: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
    """Maps of unit length, all of an image's maps together of unit length too, and the confidence: float32 [N, D]."""
    views = [part for values in maps for part in ([values] if values.ndim == 3 else np.moveaxis(values, 1, 0))]
    unit = [_unit(_shrunk(view).reshape(len(view), -1)) / np.sqrt(len(views)) for view in views]
    return np.concatenate([*unit, confidence[:, None]], axis=1).astype(np.float32)


def _unit(rows: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Rows of length one; rows of zeros stay."""
    largest = np.abs(rows).max(axis=1, keepdims=True)
    scaled = rows / np.where(largest > 0, largest, 1.0)
    length = np.linalg.norm(scaled, axis=1, keepdims=True)
    result: npt.NDArray[np.float64] = scaled / np.where(length > 0, length, 1.0)
    return result


def _shrunk(maps: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """Means over blocks, [N, h, w] to at most `_CELLS` a side; whole where the maps are no larger."""
    values = maps.astype(np.float64)
    for axis in (1, 2):
        side = values.shape[axis]
        if side > _CELLS:
            edges = np.arange(_CELLS) * side // _CELLS
            sizes = np.diff(edges, append=side).reshape([-1 if place == axis else 1 for place in range(3)])
            values = np.add.reduceat(values, edges, axis=axis) / sizes
    return values
