"""One training step's loss: both networks asked, every term computed and kept as a number."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace

import torch
from torch import nn
from torch.nn import functional

from edgekit.compress.distillation.losses import distillation_loss, form_for
from edgekit.compress.matching.distance import REFERENCE_CELLS
from edgekit.compress.matching.protocol import MatchingLoss, MatchingTerm
from edgekit.compress.matching.registry import MATCHING
from edgekit.compress.matching.second_order import differentiable_twice
from edgekit.compress.training.checks import check_teacher, dead_tap, diverged
from edgekit.compress.training.mixed_precision import half_forward, in_float32_at
from edgekit.compress.training.plan import EpochRecord, TrainPlan
from edgekit.compress.training.tap_graph import graph_from
from edgekit.teacher.tap import Tap, Tapped, forward_with_taps

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

    def check(self, where: str) -> None:
        """Raise `BadInputError` with all parts where the loss is not finite."""
        if not math.isfinite(self.loss):
            parts = (
                f"supervised {self.supervised:g}, distillation {self.distillation:g}, matching {self.term:g} times beta"
            )
            raise diverged(where, f"loss {self.loss}: {parts}")


def supervised_loss(logits: torch.Tensor, labels: torch.Tensor, task: str) -> torch.Tensor:
    """Cross-entropy of logits [N, K] and labels int64 [N], or for "multi-label" the mean of K binary ones.

    A multi-label network may also be given all of an image's classes: labels of zeros and ones, int64 [N, K].
    """
    if task == "softmax":
        return functional.cross_entropy(logits, labels)
    positive = labels if labels.dim() == 2 else functional.one_hot(labels, logits.shape[1])
    return functional.multilabel_soft_margin_loss(logits, positive.to(logits.dtype))


class Loss:
    """`(1 - w) supervised + w distillation + beta matching` of a student, as a plan has it.

    With a half type both forward passes run in it; every term is computed in float32 from float32 logits and maps.
    """

    def __init__(
        self, teacher: nn.Module, plan: TrainPlan, generator: torch.Generator, half: torch.dtype | None = None
    ) -> None:
        self._teacher, self._plan, self._generator, self._half = teacher, plan, generator, half
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
        self,
        student: nn.Module,
        x: torch.Tensor,
        labels: torch.Tensor,
        where: str,
        taps: tuple[Tap, ...] | None = None,
    ) -> tuple[torch.Tensor, Step]:
        """The loss of one prepared batch x [N, 3, H, W], with a graph, and its parts, which may not be finite.

        Args:
            student: In training mode.
            x: Prepared images.
            labels: int64 [N] or [N, K].
            where: Epoch and step, for errors.
            taps: The student's, where it is wrapped and they have other names than in the plan.

        Raises:
            BadInputError: The teacher's answers are not finite, or the maps cannot be compared.
        """
        plan = self._plan
        matched = (plan.matched_in_student if taps is None else taps) if self.matches else ()
        beyond = differentiable_twice if self._matching.needs_sensitivity else nullcontext
        seen = self._seen(student, matched, x, beyond)
        teacher = self._asked_teacher(x, where) if self.asks_teacher else None
        term = self._matching(teacher or seen, seen, self._generator)
        supervised = supervised_loss(seen.logits, labels, plan.card.task)
        distillation = self._distillation(seen, teacher)
        share = plan.distil.weight
        loss = (1 - share) * supervised + share * distillation + plan.matching.beta * term.value
        return loss, _step(loss, supervised, distillation, term, seen.logits, labels)

    def _seen(
        self,
        model: nn.Module,
        taps: tuple[Tap, ...],
        x: torch.Tensor,
        beyond: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> Tapped:
        with in_float32_at(model, taps, self._half), half_forward(self._half, x.device):
            seen = forward_with_taps(model, taps, x, beyond=beyond)
        return replace(seen, logits=seen.logits.float()) if self._half is not None else seen

    def _distillation(self, seen: Tapped, teacher: Tapped | None) -> torch.Tensor:
        if teacher is None or not self._distilled:
            return seen.logits.new_zeros(())
        options = self._plan.distil
        return distillation_loss(
            seen.logits, teacher.logits, form_for(options.form, self._plan.card.task), options.temperature
        )

    def _asked_teacher(self, x: torch.Tensor, where: str) -> Tapped:
        taps = self._plan.taps if self.matches else ()
        with graph_from(self._teacher, taps, begin=self._matching.needs_sensitivity):
            seen = self._seen(self._teacher, taps, x)
        check_teacher(seen.logits, where)
        return seen


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
        raise dead_tap(plan.taps, "training")

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
