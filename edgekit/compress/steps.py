"""From a prepared student to a compressed one: channels pruned, weights made sparse, trained in between and at last.

Whatever is trained is trained with the same loss and against the same teacher; only the final training has
`finetune.epochs`, the others the `round_epochs` of their kind. A student of random weights has them once more before
anything is removed: which of its channels or weights matter is not known earlier.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import nn

from edgekit.compress.cost import Cost, measure_cost
from edgekit.compress.matching.taps import MatchedTaps
from edgekit.compress.options import CompressOptions
from edgekit.compress.preparation import Prepared
from edgekit.compress.pruning.evidence import PruneEvidence, gather_evidence, labelled_batches
from edgekit.compress.pruning.rounds import prune_in_rounds
from edgekit.compress.pruning.structured import PruneReport
from edgekit.compress.sparsity.masks import Masks
from edgekit.compress.sparsity.rounds import sparsify_in_rounds
from edgekit.compress.training.batches import TrainingImages
from edgekit.compress.training.plan import Constraint, EpochRecord, TrainPlan
from edgekit.compress.training.trainer import train
from edgekit.core.progress import NULL_OBSERVER, Observer
from edgekit.interface.card import ModelCard
from edgekit.teacher.checkpoint import LoadedModel
from edgekit.teacher.surgery import Surgery

__all__ = ["Compressed", "Training", "TrainingRun", "compressed"]


@dataclass(frozen=True)
class TrainingRun:
    """One training of several.

    Attributes:
        name: "student", "prune-1", "sparsify-1" and so on by round, or "fine-tune"; no name is given twice.
        epochs: What it says of every epoch.
    """

    name: str
    epochs: tuple[EpochRecord, ...]

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        return {"name": self.name, "epochs": [record.to_dict() for record in self.epochs]}


@dataclass(frozen=True)
class Compressed:
    """What came out.

    Attributes:
        student: With its surgery relative to its architecture.
        runs: Every training, in order.
        before: Cost of the teacher.
        after: Cost of the student. Weights that are zero are counted.
        pruned: What structured pruning did; None where none was asked for.
        masks: Which of its weights are held at zero, and are so; None where none are.
    """

    student: LoadedModel
    runs: tuple[TrainingRun, ...]
    before: Cost
    after: Cost
    pruned: PruneReport | None = None
    masks: Masks | None = None


@dataclass
class Training:
    """Everything that the trainings of one compression share, and the record of those that were done.

    Attributes:
        teacher: The network whose maps and answers are held.
        card: Of teacher and student.
        images: Labelled images.
        options: The recipe's.
        taps: Where maps are matched.
        seed: Of the final training. Each of the others has one of its own, so that no two see the same images in the
            same order.
        threads: Torch threads.
        observer: Told about progress.
        workplace: Folder for what survives a kill, one folder in it for each training; None keeps nothing.
        runs: What was done so far.
    """

    teacher: nn.Module
    card: ModelCard
    images: TrainingImages
    options: CompressOptions
    taps: MatchedTaps
    seed: int = 0
    threads: int = 0
    observer: Observer = NULL_OBSERVER
    workplace: Path | None = None
    runs: list[TrainingRun] = field(default_factory=list)

    def place(self, name: str) -> Path | None:
        """Where the training of that name keeps its logs and what it would go on from; None where nothing is kept."""
        return None if self.workplace is None else self.workplace / name

    def run(
        self, student: nn.Module, name: str, epochs: int, constraints: Sequence[Constraint] = (), *, last: bool = False
    ) -> None:
        """Train `student` in place, unless there is no epoch to train."""
        if epochs == 0:
            return
        plan = TrainPlan(
            card=self.card,
            taps=self.taps.teacher,
            student_taps=self.taps.student,
            finetune=replace(self.options.finetune, epochs=epochs),
            matching=self.options.matching,
            distil=self.options.distil,
            constraints=tuple(constraints),
            seed=self.seed if last else self.seed + len(self.runs) + 1,
            threads=self.threads,
            name=name,
        )
        records = train(student, self.teacher, self.images, plan, self.observer, workplace=self.place(name))
        self.runs.append(TrainingRun(name, records))


def compressed(prepared: Prepared, teacher: LoadedModel, training: Training) -> Compressed:
    """Run every step that the options ask for.

    Args:
        prepared: The student, which is trained in place or replaced.
        teacher: Not changed.
        training: As which the student is trained.

    Raises:
        BadInputError: As `prune_in_rounds`, `sparsify_in_rounds` and `train` do.
    """
    options, shape = training.options, teacher.card.input.shape
    student = prepared.student
    if prepared.untrained and (options.prune.rate > 0 or options.sparsify.sparsity > 0):
        training.run(student.model, "student", options.finetune.epochs)
    report = None
    if options.prune.rate > 0:
        student, report = _pruned(student, training)
    masks = _sparsified(student.model, training)
    constraints = () if masks is None else (masks,)
    training.run(student.model, "fine-tune", options.finetune.epochs, constraints, last=True)
    if masks is not None:
        masks.check(student.model)
    return Compressed(
        student=student,
        runs=tuple(training.runs),
        before=measure_cost(teacher.model, shape),
        after=measure_cost(student.model, shape),
        pruned=report,
        masks=masks,
    )


def _pruned(student: LoadedModel, training: Training) -> tuple[LoadedModel, PruneReport]:
    options = training.options.prune

    def between(model: nn.Module, number: int) -> None:
        training.run(model, f"prune-{number}", options.round_epochs)

    def evidence(model: nn.Module, number: int) -> PruneEvidence | None:
        seed = training.seed + number - 1
        if options.importance != "taylor":
            return PruneEvidence(seed)
        batches = labelled_batches(training.images, training.card, options.images, seed)
        return gather_evidence(model, batches, training.card.task, seed=seed)

    pruned = prune_in_rounds(student.model, options, training.card.input.shape, between=between, evidence=evidence)
    surgery = _recorded(pruned.surgery, student.surgery)
    return replace(student, model=pruned.model, surgery=surgery), pruned.report


def _recorded(latest: Surgery, earlier: Surgery | None) -> Surgery | None:
    """The surgery since the architecture: a teacher that was itself pruned brings its own."""
    if earlier is not None:
        return latest.after(earlier)
    return latest if latest.layers else None


def _sparsified(model: nn.Module, training: Training) -> Masks | None:
    """Hold ever more weights at zero, with training between the rounds; the masks of the last one."""
    options = training.options.sparsify
    if options.sparsity == 0:
        return None

    def between(model: nn.Module, masks: Masks, number: int) -> None:
        training.run(model, f"sparsify-{number}", options.round_epochs, (masks,))

    return sparsify_in_rounds(model, options, between=between)
