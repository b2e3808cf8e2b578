"""The table of per-sample scores: what verification writes and every verdict is computed from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

__all__ = ["STATES", "ScoreTable"]

# "scored": both maps are usable. "both_zero": neither network finds evidence; nothing to compare, counted apart.
# "one_zero": one map vanished; every metric takes its worst value. "non_finite": the engine's map holds NaN or
# infinity; every metric takes its worst value.
STATES = ("scored", "both_zero", "one_zero", "non_finite")


@dataclass(frozen=True)
class ScoreTable:
    """One row per golden sample, in golden-set order.

    Attributes:
        sample: Digest of each sample's pixels, [N].
        label: int [N], class index of the ground truth, -1 where it is not known.
        teacher_class: int [N], the teacher's top-1.
        engine_class: int [N], the engine's own top-1; -1 where its logits are not finite.
        state: One of `STATES` each, [N].
        metrics: Metric name to float64 [N]: teacher's map against the engine's map of the SAME class, the teacher's
            top-1. NaN exactly where the state is "both_zero".
        own_class_metrics: The same, with the engine's map of its OWN top-1.
        views: Name of a map to its metrics, as `metrics`, where an image has several maps: `metrics` then holds the
            worst value over them. Empty where an image has one map.
        localisation: Name ("teacher/pixel-auc", "engine/pointing") to float64 [N]; NaN where a sample has no mask.
            Empty when the set has no masks.
    """

    sample: tuple[str, ...]
    label: npt.NDArray[np.int64]
    teacher_class: npt.NDArray[np.int64]
    engine_class: npt.NDArray[np.int64]
    state: tuple[str, ...]
    metrics: Mapping[str, npt.NDArray[np.float64]]
    own_class_metrics: Mapping[str, npt.NDArray[np.float64]]
    localisation: Mapping[str, npt.NDArray[np.float64]]
    views: Mapping[str, Mapping[str, npt.NDArray[np.float64]]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.sample)

    @property
    def agrees(self) -> npt.NDArray[np.bool_]:
        """True where teacher and engine give the same top-1, [N]."""
        return np.equal(self.teacher_class, self.engine_class)

    @property
    def compared(self) -> npt.NDArray[np.bool_]:
        """True for every state but "both_zero", [N]: the samples that a map metric speaks about."""
        return np.array([state != "both_zero" for state in self.state], dtype=np.bool_)

    def part(self, rows: npt.NDArray[np.intp]) -> ScoreTable:
        """The scores of some samples, by index."""

        def columns(group: Mapping[str, npt.NDArray[np.float64]]) -> dict[str, npt.NDArray[np.float64]]:
            return {name: values[rows] for name, values in group.items()}

        return ScoreTable(
            sample=tuple(self.sample[row] for row in rows),
            label=self.label[rows],
            teacher_class=self.teacher_class[rows],
            engine_class=self.engine_class[rows],
            state=tuple(self.state[row] for row in rows),
            metrics=columns(self.metrics),
            own_class_metrics=columns(self.own_class_metrics),
            localisation=columns(self.localisation),
            views={name: columns(group) for name, group in self.views.items()},
        )

    @classmethod
    def joined(cls, parts: Sequence[ScoreTable]) -> ScoreTable:
        """The tables of some samples after one another; at least one, all with the same columns."""

        def columns(groups: Sequence[Mapping[str, npt.NDArray[np.float64]]]) -> dict[str, npt.NDArray[np.float64]]:
            return {name: np.concatenate([group[name] for group in groups]) for name in groups[0]}

        return cls(
            sample=tuple(sample for part in parts for sample in part.sample),
            label=np.concatenate([part.label for part in parts]),
            teacher_class=np.concatenate([part.teacher_class for part in parts]),
            engine_class=np.concatenate([part.engine_class for part in parts]),
            state=tuple(state for part in parts for state in part.state),
            metrics=columns([part.metrics for part in parts]),
            own_class_metrics=columns([part.own_class_metrics for part in parts]),
            localisation=columns([part.localisation for part in parts]),
            views={name: columns([part.views[name] for part in parts]) for name in parts[0].views},
        )
