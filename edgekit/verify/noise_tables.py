"""One run's answers beside a yardstick, as a table of scores; and the controls: maps that say nothing of the image.

Controls are made of the first FP32 run, since a control is to be as good as nonsense can be:

- "permuted maps": every sample with the map of another, of another class where there are enough;
- "shuffled maps": every map with its cells in a random order;
- "centre blobs": one and the same blob in the middle for all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from edgekit.bundle.golden import GoldenSet
from edgekit.errors import BadInputError, IntegrityError
from edgekit.metrics.agreement import score_agreement, worst_of
from edgekit.metrics.classification import top_class
from edgekit.metrics.localisation import centre_prior
from edgekit.metrics.scores import ScoreTable
from edgekit.policy.floors import Measurement
from edgekit.verify.control_scores import other_samples

__all__ = ["Answers", "as_yardstick", "compared", "control_measurements"]

_SEED = 0

_Maps = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Answers:
    """What one run answered.

    Attributes:
        logits: float32 [N, classes].
        maps: Of each view of the golden set the maps of the teacher's classes, float32 [N, h, w].
    """

    logits: npt.NDArray[np.float32]
    maps: tuple[_Maps, ...]

    @classmethod
    def fitting(cls, golden: GoldenSet, logits: npt.NDArray[np.float32], maps: tuple[_Maps, ...]) -> Answers:
        """The answers, once they have the shapes of the golden set. Raises `IntegrityError` where they have not."""
        expected = [golden.logits.shape, golden.maps.shape, *(item.maps.shape for item in golden.further)]
        found = [logits.shape, *(each.shape for each in maps)]
        if expected != found:
            raise IntegrityError(
                "The engine does not answer in the shapes of the golden set.",
                expected=", ".join(str(list(shape)) for shape in expected),
                found=", ".join(str(list(shape)) for shape in found),
                hint="engine and golden set come from different builds",
            )
        return cls(logits, maps)


def as_yardstick(answers: Answers, name: str) -> Answers:
    """The answers of a first run, which others can be compared with.

    Raises:
        BadInputError: They hold values that are not finite.
    """
    arrays = (answers.logits, *answers.maps)
    if not all(np.isfinite(array).all() for array in arrays):
        broken = np.logical_or.reduce([~np.isfinite(array).reshape(len(array), -1).all(axis=1) for array in arrays])
        raise BadInputError(
            "The engine answers with values that are not finite, so there is no noise to measure.",
            where=name,
            expected="finite logits and maps",
            found=f"{int(broken.sum())} of {len(broken)} samples with NaN or infinity",
            hint="run 'edgekit verify' and 'edgekit blame' to see where they come from, or name another --engine",
        )
    return answers


def compared(golden: GoldenSet, answers: Answers, first: Answers | None = None) -> ScoreTable:
    """Score answers beside the teacher's, or beside those of a first run; of several maps a sample's worst counts."""
    teacher = Answers(golden.logits, (golden.maps, *(item.maps for item in golden.further)))
    yardstick = teacher if first is None else first
    states, metrics = worst_of(
        [score_agreement(theirs, ours) for theirs, ours in zip(yardstick.maps, answers.maps, strict=True)]
    )
    return ScoreTable(
        sample=golden.digests,
        label=golden.labels,
        teacher_class=top_class(yardstick.logits),
        engine_class=top_class(answers.logits),
        state=states,
        metrics=metrics,
        own_class_metrics={},
        localisation={},
    )


def control_measurements(golden: GoldenSet, first: Answers) -> tuple[Measurement, ...]:
    """The controls, scored beside the teacher's maps.

    A golden set of one sample has no permuted maps, and one from before there were controls no random weights.
    """
    controls: dict[str, Callable[[_Maps], _Maps]] = {"shuffled maps": _shuffled, "centre blobs": _blobs}
    if len(golden) > 1:
        source = other_samples(golden.teacher_class, 0)
        controls = {"permuted maps": lambda maps: maps[source], **controls}
    found = [_control(golden, first, controls, name) for name in controls]
    if golden.random is not None:
        drawn = Answers(
            np.eye(golden.logits.shape[1], dtype=np.float32)[golden.random.classes],
            tuple(maps[0].astype(np.float32) for maps in golden.random.maps),
        )
        found.append(_measured("random weights", golden, drawn))
    return tuple(found)


def _control(
    golden: GoldenSet, first: Answers, controls: Mapping[str, Callable[[_Maps], _Maps]], name: str
) -> Measurement:
    nonsense = replace(first, maps=tuple(controls[name](maps) for maps in first.maps))
    return _measured(name, golden, nonsense)


def _measured(name: str, golden: GoldenSet, nonsense: Answers) -> Measurement:
    return Measurement(name, "", "", "control", "teacher", "control", compared(golden, nonsense))


def _shuffled(maps: _Maps) -> _Maps:
    rows = maps.reshape(len(maps), -1)
    shuffled: _Maps = np.random.Generator(np.random.PCG64(_SEED)).permuted(rows, axis=1).reshape(maps.shape)
    return shuffled


def _blobs(maps: _Maps) -> _Maps:
    height, width = maps.shape[1:]
    blobs: _Maps = np.broadcast_to(centre_prior(height, width).astype(np.float32), maps.shape)
    return blobs
