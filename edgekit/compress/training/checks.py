"""What is refused, before a student is trained and while it is."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from edgekit.compress.options import FinetuneOptions
from edgekit.compress.training.plan import TrainPlan
from edgekit.compress.training.reproducible import evaluating
from edgekit.errors import BadInputError
from edgekit.teacher.tap import Tap, Tapped, forward_with_taps

__all__ = [
    "check_alike",
    "check_enough",
    "check_separate",
    "check_statistics",
    "check_teacher",
    "dead_tap",
    "diverged",
]


def check_separate(student: nn.Module, teacher: nn.Module) -> None:
    """Raise `BadInputError` where the two networks share a tensor."""

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
            hint="train a copy: copy.deepcopy(teacher)",
        )


def check_alike(student: nn.Module, teacher: nn.Module | None, x: torch.Tensor, plan: TrainPlan, *, maps: bool) -> None:
    """Raise `BadInputError` unless both networks answer for the card's classes, with maps of the same sizes.

    Args:
        student: The student.
        teacher: None where it is of no consequence.
        x: Prepared images [N, 3, H, W] to try.
        plan: What is planned.
        maps: Whether maps are compared at its taps.
    """
    ours = _tried("student", student, plan.matched_in_student if maps else (), x, plan)
    if teacher is None:
        return
    theirs = _tried("teacher", teacher, plan.taps if maps else (), x, plan)
    for tap, their, our in zip(plan.taps, theirs.activations, ours.activations, strict=False):
        if their.shape[2:] != our.shape[2:]:
            raise BadInputError(
                "Teacher and student have maps of different sizes, which cannot be compared.",
                where=tap.name,
                expected=f"the teacher's {list(their.shape[2:])}",
                found=f"the student's {list(our.shape[2:])}",
                hint="choose taps where both have the same resolution, or set compress.matching.loss to none",
            )


def _tried(name: str, model: nn.Module, taps: tuple[Tap, ...], x: torch.Tensor, plan: TrainPlan) -> Tapped:
    with evaluating(model), torch.no_grad():
        seen = forward_with_taps(model, taps, x)
    wanted, found = [len(x), len(plan.card.classes)], list(seen.logits.shape)
    if found != wanted:
        raise BadInputError(
            f"The {name} does not answer for the card's classes.",
            expected=f"logits {wanted} for {wanted[1]} classes",
            found=f"logits {found}",
        )
    return seen


def check_enough(trained: int, judged: int | None) -> None:
    """Raise `BadInputError` where too few images are left to make a batch of (one has no variance) or to judge by.

    Args:
        trained: Images to train on.
        judged: Images held back; None where none are wanted.
    """
    if trained < 2:
        raise BadInputError(
            "There are too few images to train on.",
            expected="at least 2",
            found=str(trained),
            hint="give more, or raise compress.finetune.max_images",
        )
    if judged == 0:
        raise BadInputError(
            "There are too few images to hold back any.",
            expected="a class with at least 2",
            found="classes of one image each",
            hint="give more, or set compress.finetune.patience to 0",
        )


def check_statistics(student: nn.Module, options: FinetuneOptions, processes: int) -> None:
    """Raise `BadInputError` where several processes would each normalise by the statistics of their own images."""
    if processes > 1 and options.batch_norm == "batch":
        named = [name for name, module in student.named_modules() if isinstance(module, _BatchNorm)]
        if named:
            raise BadInputError(
                "Batch statistics cannot be shared by several processes: matching needs their second derivative.",
                where=", ".join(named[:5]),
                expected="compress.finetune.batch_norm: running, or one process",
                found=f"batch, and {processes} processes",
            )


def check_teacher(logits: torch.Tensor, where: str) -> None:
    """Raise `BadInputError` where the teacher's answers are not finite."""
    if not torch.isfinite(logits).all():
        raise BadInputError(
            "The teacher's answers are not finite.", where=where, hint="check the teacher and the card's input"
        )


def dead_tap(taps: Sequence[Tap], kind: str) -> BadInputError:
    """The error of a teacher whose maps are all zero on the images of this kind."""
    return BadInputError(
        f"The tap is dead: the teacher's map is zero on every {kind} image.",
        where=", ".join(tap.name for tap in taps),
        hint="choose another tap with --tap, or set compress.matching.loss to none",
    )


def diverged(where: str, found: str) -> BadInputError:
    """The error of a loss or weight that is not finite."""
    return BadInputError(
        "Training diverged.",
        where=where,
        expected="a finite loss",
        found=found,
        hint="lower compress.finetune.learning_rate or compress.matching.beta, or set compress.finetune.clip_norm",
    )
