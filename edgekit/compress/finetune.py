"""Fine-tuning a pruned network while its map is held to the teacher's: the structured recipe of Park et al. 2020.

`loss = supervised + beta * matching`, SGD with momentum and weight decay, no distillation of the answers. The teacher
is in evaluation mode throughout (in the released code it is not always, and its map then moves); the student is in
training mode, so that batch normalisation follows the channels that are left. The student's map is therefore that of
training mode: where batch normalisation lies between tap and answer, its sensitivity goes through batch statistics.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy.typing as npt
import torch
from torch import nn
from torch.nn import functional

from edgekit.compress.batches import TrainingImages, training_indices, varied, visiting_order
from edgekit.compress.matching import REFERENCE_CELLS, MatchingLoss, MatchingTerm
from edgekit.compress.options import FinetuneOptions, MatchingOptions
from edgekit.compress.registry import MATCHING
from edgekit.compress.reproducible import channels_last, evaluating, reproducible
from edgekit.core.progress import NULL_OBSERVER, Observer
from edgekit.errors import BadInputError
from edgekit.interface.card import ModelCard
from edgekit.interface.preprocess import preprocess
from edgekit.teacher.tap import Tap, Tapped, as_tap, find_module, forward_with_tap

__all__ = ["EpochRecord", "FinetunePlan", "finetune", "learning_rate_at", "supervised_loss"]


@dataclass(frozen=True)
class FinetunePlan:
    """What to do to a student.

    Attributes:
        card: The card that teacher and student share.
        tap: Where the matched maps live, in both.
        finetune: Schedule and augmentation.
        matching: The matching term; a beta of 0 is the same as no matching.
        seed: Decides image choice, order, augmentation, dropout and the matching loss's draws.
        threads: Torch threads, 0 for the process's setting.
    """

    card: ModelCard
    tap: Tap | str
    finetune: FinetuneOptions
    matching: MatchingOptions
    seed: int = 0
    threads: int = 0


@dataclass(frozen=True)
class EpochRecord:
    """Means over the images of one epoch, in training mode.

    Attributes:
        epoch: From 1.
        images: Images seen; a last batch of one is dropped.
        learning_rate: Of the epoch's first step.
        loss: What was minimised: `supervised + matching`.
        supervised: The classification loss.
        matching: The matching term times beta.
        map_distance: Squared distance of the normalised maps, `2 (1 - cosine)`, 0 to 2; 0 without matching.
        accuracy: Share of images answered with their label.
        teacher_zero: Images whose teacher map is zero.
        student_zero: Images whose student map alone is zero.
    """

    epoch: int
    images: int
    learning_rate: float
    loss: float
    supervised: float
    matching: float
    map_distance: float
    accuracy: float
    teacher_zero: int
    student_zero: int

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        return asdict(self)


def finetune(
    student: nn.Module,
    teacher: nn.Module,
    images: TrainingImages,
    plan: FinetunePlan,
    observer: Observer = NULL_OBSERVER,
) -> tuple[EpochRecord, ...]:
    """Train `student` in place; it is left in evaluation mode without parameter gradients.

    Args:
        student: The network to train.
        teacher: The network whose maps are held; not changed, and of no consequence without matching.
        images: Labelled images at the card's input size; those without a label are left out.
        plan: How.
        observer: Told after every step, with the parts of the loss.

    Returns:
        One record an epoch. The same on the same machine with the same seed and threads, whatever the process did
        before.

    Raises:
        BadInputError: The networks share weights or answer for other classes than the card's, their maps differ in
            size, the teacher's maps are all zero, the images cannot be trained on, or the loss is not finite.
    """
    _check_separate(student, teacher)
    with reproducible(plan.seed, plan.threads) as generator, evaluating(teacher), channels_last(student, teacher):
        indices = training_indices(images.labels, plan.card.classes, plan.finetune.max_images, generator)
        run = _Run(student, teacher, images, plan, generator)
        run.check_answers(indices[:2])
        try:
            student.train().requires_grad_(True)
            return tuple(run.epoch(epoch, indices, observer) for epoch in range(1, plan.finetune.epochs + 1))
        finally:
            student.eval().requires_grad_(False)


def learning_rate_at(options: FinetuneOptions, step: int, steps: int) -> float:
    """Rate of step 0 <= `step` < `steps`: constant, or half a cosine from the full rate down towards zero."""
    if options.schedule == "constant":
        return options.learning_rate
    return options.learning_rate * 0.5 * (1 + math.cos(math.pi * step / steps))


def supervised_loss(logits: torch.Tensor, labels: torch.Tensor, task: str) -> torch.Tensor:
    """Cross-entropy of logits [N, K] and labels int64 [N], or for "multi-label" the mean of K binary ones."""
    if task == "softmax":
        return functional.cross_entropy(logits, labels)
    positive = functional.one_hot(labels, logits.shape[1]).to(logits.dtype)
    return functional.multilabel_soft_margin_loss(logits, positive)


def _check_separate(student: nn.Module, teacher: nn.Module) -> None:
    def storages(model: nn.Module) -> dict[int, str]:
        tensors = model.state_dict(keep_vars=True)
        return {tensor.untyped_storage().data_ptr(): name for name, tensor in tensors.items() if tensor.numel()}

    theirs, ours = storages(teacher), storages(student)
    shared = sorted(ours[pointer] for pointer in theirs.keys() & ours.keys())
    if shared:
        raise BadInputError(
            "Student and teacher share weights, so that training one would move the other.",
            expected="two networks with tensors of their own",
            found=", ".join(shared[:5]),
            hint="fine-tune a copy: copy.deepcopy(teacher)",
        )


@dataclass(frozen=True)
class _Step:
    """Loss parts of one step, as numbers."""

    images: int
    loss: float
    supervised: float
    term: float
    correct: int
    teacher_zero: int
    student_zero: int


class _Run:
    """One fine-tuning: what stays the same over its steps."""

    def __init__(
        self,
        student: nn.Module,
        teacher: nn.Module,
        images: TrainingImages,
        plan: FinetunePlan,
        generator: torch.Generator,
    ) -> None:
        self._student, self._teacher = student, teacher
        self._plan, self._generator = plan, generator
        # Looked up once: a set may decode or gather them whenever it is asked.
        self._pixels, self._labels = images.pixels, images.labels
        name = plan.matching.loss if plan.matching.beta > 0 else "none"
        self._matching: MatchingLoss = MATCHING.load(name)(plan.matching)
        self._device = next(student.parameters()).device
        self._optimiser = torch.optim.SGD(
            student.parameters(),
            lr=plan.finetune.learning_rate,
            momentum=plan.finetune.momentum,
            weight_decay=plan.finetune.weight_decay,
        )
        self._done = 0

    def check_answers(self, indices: npt.NDArray[Any]) -> None:
        """Raise unless both networks answer for the card's classes."""
        wanted = (len(indices), len(self._plan.card.classes))
        networks = {"student": self._student}
        if self._matching.needs_teacher:
            networks["teacher"] = self._teacher
        for name, model in networks.items():
            with evaluating(model), torch.no_grad():
                found = tuple(model(self._prepared(indices, vary=False)).shape)
            if found != wanted:
                raise BadInputError(
                    f"The {name} does not answer for the card's classes.",
                    expected=f"logits {list(wanted)} for {wanted[1]} classes",
                    found=f"logits {list(found)}",
                )

    def epoch(self, number: int, indices: npt.NDArray[Any], observer: Observer) -> EpochRecord:
        """One pass over the images."""
        options = self._plan.finetune
        batches = list(visiting_order(indices, options.batch_size, self._generator))
        total = len(batches) * options.epochs
        first_rate = learning_rate_at(options, self._done, total)
        steps: list[_Step] = []
        for position, batch in enumerate(batches, start=1):
            rate = learning_rate_at(options, self._done, total)
            self._optimiser.param_groups[0]["lr"] = rate
            step = self._step(batch, where=f"epoch {number} of {options.epochs}, step {position} of {len(batches)}")
            steps.append(step)
            self._done += 1
            observer.advanced("fine-tune", self._done, total, self._described(number, step, rate))
        self._check_weights(number)
        return self._summed(number, first_rate, steps)

    def _step(self, batch: npt.NDArray[Any], where: str) -> _Step:
        x = self._prepared(batch, vary=True)
        labels = torch.from_numpy(self._labels[batch]).to(self._device)
        student, term = self._matched(x, where)
        supervised = supervised_loss(student.logits, labels, self._plan.card.task)
        loss = supervised + self._plan.matching.beta * term.value
        if not torch.isfinite(loss):
            raise _diverged(where, f"loss {float(loss.detach())}")
        self._optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self._optimiser.step()
        return _Step(
            images=len(batch),
            loss=float(loss.detach()),
            supervised=float(supervised.detach()),
            term=float(term.value.detach()),
            correct=int((student.logits.detach().argmax(dim=1) == labels).sum()),
            teacher_zero=term.teacher_zero,
            student_zero=term.student_zero,
        )

    def _matched(self, x: torch.Tensor, where: str) -> tuple[Tapped, MatchingTerm]:
        if not self._matching.needs_teacher:
            logits = self._student(x)
            student = Tapped(logits, logits)
            return student, self._matching(student, student, self._generator)
        student = forward_with_tap(self._student, self._plan.tap, x)
        teacher = self._teacher_answer(x)
        if not torch.isfinite(teacher.logits).all():
            raise BadInputError(
                "The teacher's answers are not finite.", where=where, hint="check the teacher and the card's input"
            )
        return student, self._matching(teacher, student, self._generator)

    def _teacher_answer(self, x: torch.Tensor) -> Tapped:
        """The teacher's answer with a graph from the tap on and none before it, where all the work is."""

        def begin_graph(_module: nn.Module, _inputs: object, output: torch.Tensor) -> torch.Tensor:
            # A clone, since what follows the tap may work in place, which a leaf does not allow.
            return output.detach().requires_grad_(self._matching.needs_sensitivity).clone()

        module = find_module(self._teacher, as_tap(self._plan.tap).name)
        handle = module.register_forward_hook(begin_graph)
        try:
            return forward_with_tap(self._teacher, self._plan.tap, x)
        finally:
            handle.remove()

    def _prepared(self, indices: npt.NDArray[Any], *, vary: bool) -> torch.Tensor:
        pixels = self._pixels[indices]
        if vary:
            pixels = varied(pixels, self._plan.finetune, self._generator)
        return torch.from_numpy(preprocess(pixels, self._plan.card.input)).to(self._device)

    def _described(self, epoch: int, step: _Step, rate: float) -> str:
        parts = f"epoch {epoch}/{self._plan.finetune.epochs}, loss {step.loss:.4f}"
        if self._matching.needs_teacher:
            parts += f" = {step.supervised:.4f} supervised + {self._plan.matching.beta * step.term:.4f} matching"
        return f"{parts}, rate {rate:.2g}"

    def _check_weights(self, epoch: int) -> None:
        """A step can break weights after its loss was still finite; batch normalisation's statistics likewise."""
        for name, tensor in self._student.state_dict().items():
            if tensor.is_floating_point() and not torch.isfinite(tensor).all():
                raise _diverged(f"end of epoch {epoch} of {self._plan.finetune.epochs}", f"{name} is not finite")

    def _summed(self, epoch: int, rate: float, steps: list[_Step]) -> EpochRecord:
        images = sum(step.images for step in steps)
        teacher_zero = sum(step.teacher_zero for step in steps)
        if self._matching.needs_teacher and teacher_zero == images:
            raise BadInputError(
                "The tap is dead: the teacher's map is zero on every training image.",
                where=as_tap(self._plan.tap).name,
                hint="choose another tap with --tap, or set compress.matching.loss to none",
            )

        def mean(field: str) -> float:
            return math.fsum(getattr(step, field) * step.images for step in steps) / images

        return EpochRecord(
            epoch=epoch,
            images=images,
            learning_rate=rate,
            loss=mean("loss"),
            supervised=mean("supervised"),
            matching=self._plan.matching.beta * mean("term"),
            map_distance=REFERENCE_CELLS * mean("term"),
            accuracy=sum(step.correct for step in steps) / images,
            teacher_zero=teacher_zero,
            student_zero=sum(step.student_zero for step in steps),
        )


def _diverged(where: str, found: str) -> BadInputError:
    return BadInputError(
        "Fine-tuning diverged.",
        where=where,
        expected="a finite loss",
        found=found,
        hint="lower compress.finetune.learning_rate or compress.matching.beta",
    )
