"""What a training run is told, and what it says of every epoch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

from torch import nn

from edgekit.compress.options import DistilOptions, FinetuneOptions, MatchingOptions
from edgekit.errors import BadInputError
from edgekit.interface.card import ModelCard
from edgekit.teacher.tap import Tap

__all__ = ["Constraint", "EpochRecord", "TrainPlan"]


class Constraint(Protocol):
    """Something that holds of the student's weights whatever the optimiser does, such as a mask."""

    def apply(self, student: nn.Module) -> None:
        """Restore it, in place and without a graph; called before the first step and after every one.

        It depends on nothing but the constraint itself and the student's weights: a run that goes on from a checkpoint
        has the weights of the run that was killed, and constraints as they were at its start.
        """


@dataclass(frozen=True)
class TrainPlan:
    """What to do to a student.

    Attributes:
        card: The card that teacher and student share.
        taps: Where the matched maps live in the teacher.
        finetune: Schedule and augmentation.
        matching: The matching term; a beta of 0 is the same as no matching.
        student_taps: Where they live in the student; empty for the same modules.
        distil: The distillation term; its `student` is of no consequence here.
        constraints: Kept throughout.
        learning_rates: Parameter name to a learning rate of its own; the schedule applies to it as to the others.
        undecayed: Names of parameters without weight decay.
        seed: Decides image choice, order, augmentation, dropout and the matching loss's draws.
        threads: Torch threads, 0 for the process's setting.
        name: What the run is called in progress and logs.
    """

    card: ModelCard
    taps: tuple[Tap, ...]
    finetune: FinetuneOptions
    matching: MatchingOptions
    student_taps: tuple[Tap, ...] = ()
    distil: DistilOptions = field(default_factory=DistilOptions)
    constraints: Sequence[Constraint] = ()
    learning_rates: Mapping[str, float] = field(default_factory=dict)
    undecayed: frozenset[str] = frozenset()
    seed: int = 0
    threads: int = 0
    name: str = "fine-tune"

    def __post_init__(self) -> None:
        if self.student_taps and len(self.student_taps) != len(self.taps):
            raise BadInputError(
                "Teacher and student must be matched at as many taps.",
                expected=", ".join(tap.name for tap in self.taps),
                found=", ".join(tap.name for tap in self.student_taps),
            )

    @property
    def matched_in_student(self) -> tuple[Tap, ...]:
        """Where the matched maps live in the student."""
        return self.student_taps or self.taps


@dataclass(frozen=True)
class EpochRecord:
    """Means over the images of one epoch, in training mode, and what was then measured on the images held back.

    Attributes:
        epoch: From 1.
        images: Images seen; a last batch of one is dropped.
        learning_rate: Of the epoch's first step.
        loss: What was minimised: `(1 - w) supervised + w distillation + matching`, with w the distillation's weight.
        supervised: The classification loss, unweighted.
        distillation: The distillation loss, unweighted; 0 without one.
        matching: The matching term times beta.
        map_distance: The matching term on the scale of `2 (1 - cosine)`, 0 to 2; 0 without matching.
        accuracy: Share of images answered with their label.
        teacher_zero: Images whose teacher map is zero.
        student_zero: Images whose student map alone is zero.
        agreement: With `patience`: agreement of maps and answers on the images held back, -1 to 1, of the weights as
            they would be deployed; see `edgekit.compress.training.monitor`. The student ends with the weights of the
            first epoch in which it is highest. None where it was not measured.
    """

    epoch: int
    images: int
    learning_rate: float
    loss: float
    supervised: float
    distillation: float
    matching: float
    map_distance: float
    accuracy: float
    teacher_zero: int
    student_zero: int
    agreement: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        return asdict(self)
