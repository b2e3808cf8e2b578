"""One training step's loss: both networks asked, every term computed and kept as a number."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

from edgekit.compress.distillation.losses import distillation_loss, form_for
from edgekit.compress.matching.distance import REFERENCE_CELLS
from edgekit.compress.matching.protocol import MatchingLoss, MatchingTerm
from edgekit.compress.matching.registry import MATCHING
from edgekit.compress.training.checks import diverged
from edgekit.compress.training.plan import EpochRecord, TrainPlan
from edgekit.errors import BadInputError
from edgekit.teacher.tap import Tap, Tapped, find_module, forward_with_taps

__all__ = ["Loss", "Step", "summed", "supervised_loss"]


@dataclass(frozen=True)
class Step:
    """Loss parts of one step, as numbers; `term` is the matching term before beta."""

    images: int
    loss: float
    supervised: float
    distillation: float
    term: float
    correct: int
    teacher_zero: int
    student_zero: int


def supervised_loss(logits: torch.Tensor, labels: torch.Tensor, task: str) -> torch.Tensor:
    """Cross-entropy of logits [N, K] and labels int64 [N], or for "multi-label" the mean of K binary ones.

    A multi-label network may also be given all of an image's classes: labels of zeros and ones, int64 [N, K].
    """
    if task == "softmax":
        return functional.cross_entropy(logits, labels)
    positive = labels if labels.dim() == 2 else functional.one_hot(labels, logits.shape[1])
    return functional.multilabel_soft_margin_loss(logits, positive.to(logits.dtype))


class Loss:
    """`(1 - w) supervised + w distillation + beta matching` of a student, as a plan has it."""

    def __init__(self, teacher: nn.Module, plan: TrainPlan, generator: torch.Generator) -> None:
        self._teacher, self._plan, self._generator = teacher, plan, generator
        name = plan.matching.loss if plan.matching.beta > 0 else "none"
        self._matching: MatchingLoss = MATCHING.load(name)(plan.matching)
        self._distilled = plan.distil.weight > 0

    @property
    def asks_teacher(self) -> bool:
        """Whether the teacher is of any consequence."""
        return self._matching.needs_teacher or self._distilled

    @property
    def matches(self) -> bool:
        """Whether maps are matched."""
        return self._matching.needs_teacher

    def __call__(
        self, student: nn.Module, x: torch.Tensor, labels: torch.Tensor, where: str
    ) -> tuple[torch.Tensor, Step]:
        """The loss of one prepared batch x [N, 3, H, W], with a graph, and its parts.

        Raises:
            BadInputError: The teacher's answers or the loss are not finite, or the maps cannot be compared.
        """
        plan = self._plan
        taps = plan.matched_in_student if self.matches else ()
        seen = forward_with_taps(student, taps, x)
        teacher = self._asked_teacher(x, where) if self.asks_teacher else None
        term = self._matching(teacher or seen, seen, self._generator)
        supervised = supervised_loss(seen.logits, labels, plan.card.task)
        distillation = self._distillation(seen, teacher)
        share = plan.distil.weight
        loss = (1 - share) * supervised + share * distillation + plan.matching.beta * term.value
        if not torch.isfinite(loss):
            raise diverged(where, f"loss {float(loss.detach())}")
        return loss, _step(loss, supervised, distillation, term, seen.logits, labels)

    def _distillation(self, seen: Tapped, teacher: Tapped | None) -> torch.Tensor:
        if teacher is None or not self._distilled:
            return seen.logits.new_zeros(())
        options = self._plan.distil
        return distillation_loss(
            seen.logits, teacher.logits, form_for(options.form, self._plan.card.task), options.temperature
        )

    def _asked_teacher(self, x: torch.Tensor, where: str) -> Tapped:
        taps = self._plan.taps if self.matches else ()
        with _graph_from(self._teacher, taps, begin=self._matching.needs_sensitivity):
            seen = forward_with_taps(self._teacher, taps, x)
        if not torch.isfinite(seen.logits).all():
            raise BadInputError(
                "The teacher's answers are not finite.", where=where, hint="check the teacher and the card's input"
            )
        return seen


@contextmanager
def _graph_from(model: nn.Module, taps: Sequence[Tap], *, begin: bool) -> Iterator[None]:
    """Let a network without gradients have a graph from each tap on and none before it, where all the work is."""

    def hook(_module: nn.Module, _inputs: object, output: torch.Tensor) -> torch.Tensor:
        # A clone, since what follows the tap may work in place, which a leaf does not allow. An output that has a
        # graph lies behind another tap, whose gradient goes through it.
        return output if output.requires_grad else output.detach().requires_grad_(begin).clone()

    with ExitStack() as hooks:
        for tap in taps:
            handle = find_module(model, tap.name).register_forward_hook(hook)
            hooks.callback(handle.remove)
        yield


def _step(
    loss: torch.Tensor,
    supervised: torch.Tensor,
    distillation: torch.Tensor,
    term: MatchingTerm,
    logits: torch.Tensor,
    labels: torch.Tensor,
) -> Step:
    best = logits.detach().argmax(dim=1)
    hits = labels.gather(1, best[:, None])[:, 0] > 0 if labels.dim() == 2 else best == labels
    return Step(
        images=len(labels),
        loss=float(loss.detach()),
        supervised=float(supervised.detach()),
        distillation=float(distillation.detach()),
        term=float(term.value.detach()),
        correct=int(hits.sum()),
        teacher_zero=term.teacher_zero,
        student_zero=term.student_zero,
    )


def summed(plan: TrainPlan, epoch: int, rate: float, steps: Sequence[Step], *, matches: bool) -> EpochRecord:
    """The record of an epoch.

    Raises:
        BadInputError: The teacher's map was zero on every image.
    """
    images = sum(step.images for step in steps)
    teacher_zero = sum(step.teacher_zero for step in steps)
    if matches and teacher_zero == images:
        raise BadInputError(
            "The tap is dead: the teacher's map is zero on every training image.",
            where=", ".join(tap.name for tap in plan.taps),
            hint="choose another tap with --tap, or set compress.matching.loss to none",
        )

    def mean(field: str) -> float:
        return math.fsum(getattr(step, field) * step.images for step in steps) / images

    on_the_scale_of_cosine = 2 if plan.matching.distance == "cosine" else REFERENCE_CELLS
    return EpochRecord(
        epoch=epoch,
        images=images,
        learning_rate=rate,
        loss=mean("loss"),
        supervised=mean("supervised"),
        distillation=mean("distillation"),
        matching=plan.matching.beta * mean("term"),
        map_distance=on_the_scale_of_cosine * mean("term"),
        accuracy=sum(step.correct for step in steps) / images,
        teacher_zero=teacher_zero,
        student_zero=sum(step.student_zero for step in steps),
    )
