"""What a search for faults is given: the golden set, the engine's answers, and the engine to be asked again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import numpy as np

from edgekit.bundle.golden import GoldenSet
from edgekit.engines.protocol import Runner
from edgekit.interface.card import InputSpec
from edgekit.metrics.scores import ScoreTable
from edgekit.verify.answers import EngineAnswers, answer_golden
from edgekit.verify.diagnosis.finding import Finding, closes, logit_error, mean_cosine

__all__ = ["Finder", "Suspect", "match", "restores"]

# Of many samples some runs are looked at, in each of which neighbours stay neighbours, so that a mixed-up order shows.
_RUNS = 4
_RUN = 256
# Samples for questions that the engine has to be asked again for: what bounds the cost of a diagnosis.
_SAMPLES = 32
# What an undone fault of the input leaves: INT8 and some pruning, and not a wreck that another input suits less badly.
_RESTORED = 0.85


@dataclass(frozen=True)
class Suspect:
    """An engine whose answers are looked into.

    Attributes:
        golden: The golden set, or of a large one some runs of samples: what bounds memory and time of a diagnosis.
        answers: What the engine said about those.
        table: The scores of those answers.
        runner: The engine, to be asked again with other inputs; None where there is none to ask.
        samples: Digests of all samples of the golden set.
        student: SHA-256 of the student's file that the engine has to be made of; empty where that is not known.
        one_map: The engine has shown that a class has one map, however it is asked for, so it need not show it again.
    """

    golden: GoldenSet
    answers: EngineAnswers
    table: ScoreTable
    runner: Runner | None
    samples: tuple[str, ...]
    student: str = ""
    one_map: bool = False

    @classmethod
    def of(
        cls, golden: GoldenSet, answers: EngineAnswers, table: ScoreTable, runner: Runner | None, student: str = ""
    ) -> Suspect:
        """The part of an engine's answers that is looked into: all of them up to 1,024."""
        samples, count, twice = table.sample, len(table), answers.asked_both_ways
        if count > _RUNS * _RUN:
            starts = np.linspace(0, count - _RUN, _RUNS).astype(np.intp)
            rows = (starts[:, None] + np.arange(_RUN)).reshape(-1)
            golden, answers, table = golden.part(rows), answers.part(rows), table.part(rows)
        return cls(golden, answers, table, runner, samples, student, one_map=twice is not None and 0 < twice < count)

    @cached_property
    def cosine(self) -> float:
        """Mean cosine of the maps as they are."""
        return mean_cosine(self.golden.maps, self.answers.maps)

    @property
    def agreement(self) -> float:
        """Share of equal predictions, as they are."""
        return float(np.mean(self.table.agrees))

    @cached_property
    def logit_error(self) -> float:
        """How far the logits are off, as a share of how far they spread."""
        return logit_error(self.golden.logits, self.answers.logits)

    @cached_property
    def part(self) -> GoldenSet:
        """The first samples, few enough to be answered some dozen times."""
        return replace(self.golden.part(np.arange(min(_SAMPLES, len(self.golden)))), masks=None, random=None)

    @cached_property
    def part_match(self) -> float:
        """`match` of the part as the engine answers it, asked in the same way as the searches ask."""
        return 0.0 if self.runner is None else match(self.part, self.ask(self.runner, self.part))

    def ask(self, runner: Runner, golden: GoldenSet, spec: InputSpec | None = None) -> EngineAnswers:
        """Ask the engine again: as it is or behind another `runner`, about `golden`, prepared as `spec` says."""
        return answer_golden(runner, golden, spec=spec, audited=not self.one_map)


@dataclass(frozen=True)
class Finder:
    """A search for one family of faults.

    Attributes:
        faults: Names of what it may find.
        find: The search.
        when: "always", "mismatch" (maps or answers are not those of a healthy engine), or "unexplained" (and no
            search before found why): what says by exclusion which part is wrong must not speak before the others.
        asks: It asks the engine again, so it is left out where there is none.
    """

    faults: tuple[str, ...]
    find: Callable[[Suspect], Sequence[Finding]]
    when: Literal["always", "mismatch", "unexplained"] = "mismatch"
    asks: bool = False


def match(golden: GoldenSet, answers: EngineAnswers) -> float:
    """How well answers match in all that they say: the mean of agreement, mean cosine and 1 - error of the logits.

    Predictions and maps alone are too coarse: a pruned engine's may come near by luck under another preparation.
    """
    agreement = float(np.mean(np.argmax(np.nan_to_num(answers.logits), axis=1) == golden.teacher_class))
    near = 1 - min(1.0, logit_error(golden.logits, answers.logits))
    return (agreement + mean_cosine(golden.maps, answers.maps) + near) / 3


def restores(before: float, after: float) -> bool:
    """Whether `match` after undoing a fault of the input says that it was that fault."""
    return closes(before, after) and after >= _RESTORED
