"""One hop on the way from the teacher to the engine that ships: its answers, held against two others'."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgekit.bundle.golden import GoldenSet
from edgekit.calibrate.drift import sample_drift
from edgekit.calibrate.probe import Answers
from edgekit.metrics.agreement import score_agreement, worst_of
from edgekit.verify.answers import EngineAnswers

__all__ = ["Comparison", "Hop", "compared", "teacher_as_answers"]


@dataclass(frozen=True)
class Comparison:
    """How one network's answers differ from another's, on the same images.

    Attributes:
        means: Every metric of maps to its mean over the images where both maps have something, for maps of the
            TEACHER's class on both sides; of several maps an image's worst counts. None where no image has any.
        own_means: The same for maps of each network's own answer.
        divergence: Mean Kullback-Leibler divergence of the answers in nats; None where some are not finite.
        flips: Share of the images with another top-1, 0 to 1.
        states: State of a pair of maps to the number of images; see `metrics.scores.STATES`.
    """

    means: Mapping[str, float | None]
    own_means: Mapping[str, float | None]
    divergence: float | None
    flips: float
    states: Mapping[str, int]

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        return {
            "means": dict(self.means),
            "own_means": dict(self.own_means),
            "divergence": self.divergence,
            "flips": self.flips,
            "states": dict(self.states),
        }


@dataclass(frozen=True)
class Hop:
    """One network on the way.

    Attributes:
        name: "teacher", "compressed", "trained", "onnx", "fp16", "qdq" or "engine".
        title: The same in words.
        source: Name of the hop that it was made from and is compared with, None for the teacher.
        on_path: False for a network that is looked at beside the way: nothing that ships was made from it.
        ran_on: What answered, in words; empty where nothing was run.
        reason: Why it was not measured; empty where it was.
        note: What should be known about the measurement.
        against_teacher: Its answers against the teacher's.
        against_source: Its answers against those of the nearest measured hop before it.
        compared_with: Name of that hop.
        outcome: What the policy says of it: "pass", "fail" or "inconclusive"; None where nothing was judged.
        failed: Demands that it fails, in words.
    """

    name: str
    title: str
    source: str | None
    on_path: bool = True
    ran_on: str = ""
    reason: str = ""
    note: str = ""
    against_teacher: Comparison | None = None
    against_source: Comparison | None = None
    compared_with: str | None = None
    outcome: str | None = None
    failed: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        return {
            "name": self.name,
            "title": self.title,
            "source": self.source,
            "on_path": self.on_path,
            "ran_on": self.ran_on,
            "reason": self.reason,
            "note": self.note,
            "against_teacher": None if self.against_teacher is None else self.against_teacher.to_dict(),
            "against_source": None if self.against_source is None else self.against_source.to_dict(),
            "compared_with": self.compared_with,
            "outcome": self.outcome,
            "failed": list(self.failed),
        }


def teacher_as_answers(golden: GoldenSet) -> EngineAnswers:
    """The stored answers of the teacher; its own class is the class that is explained."""
    further = tuple(item.maps for item in golden.further)
    return EngineAnswers(golden.logits, golden.maps, golden.maps, further, further)


def compared(before: EngineAnswers, found: EngineAnswers) -> Comparison | None:
    """Hold answers against those before, or None where those before are not finite: there is no yardstick then."""
    ours, theirs = (before.maps, *before.further), (found.maps, *found.further)
    own, their_own = (before.own_maps, *before.own_further), (found.own_maps, *found.own_further)
    if not all(np.isfinite(array).all() for array in (before.logits, *ours, *own)):
        return None
    states, metrics = worst_of([score_agreement(a, b) for a, b in zip(ours, theirs, strict=True)])
    _, own_metrics = worst_of([score_agreement(a, b) for a, b in zip(own, their_own, strict=True)])
    finite = bool(np.isfinite(found.logits).all())
    logits = np.nan_to_num(found.logits)
    drift = sample_drift(Answers(before.logits, ours), Answers(logits, theirs))
    return Comparison(
        means={name: _mean(values) for name, values in metrics.items()},
        own_means={name: _mean(values) for name, values in own_metrics.items()},
        divergence=float(drift["logits"].mean()) if finite else None,
        flips=float(drift["flips"].mean()),
        states={state: states.count(state) for state in dict.fromkeys(states)},
    )


def _mean(values: npt.NDArray[np.float64]) -> float | None:
    present = values[~np.isnan(values)]
    return float(present.mean()) if present.size else None
