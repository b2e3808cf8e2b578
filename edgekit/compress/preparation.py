"""What is settled before anything is trained: the student, the taps, and that recipe and teacher fit each other."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace

import torch

from edgekit.compress.distillation.losses import form_for
from edgekit.compress.distillation.student import make_student, with_own_taps
from edgekit.compress.matching.taps import MatchedTaps, matched_taps
from edgekit.compress.options import CompressOptions
from edgekit.compress.outline import check_format
from edgekit.errors import BadInputError
from edgekit.teacher.checkpoint import LoadedModel
from edgekit.teacher.discovery import resolve_taps

__all__ = ["Prepared", "prepare"]


@dataclass(frozen=True)
class Prepared:
    """A student that can be trained.

    Attributes:
        student: A copy of the teacher, or a network of another architecture with random weights.
        taps: Where maps are matched.
        untrained: Whether the student has random weights.
    """

    student: LoadedModel
    taps: MatchedTaps
    untrained: bool


def prepare(
    teacher: LoadedModel, options: CompressOptions, *, seed: int, where: str, compares_taps: bool = True
) -> Prepared:
    """Make the student and find the taps of both networks.

    Args:
        teacher: Not changed.
        options: With a student that the user is known to trust.
        seed: Decides the weights of a student of another architecture.
        where: The teacher's file, for messages.
        compares_taps: Whether maps at the card's taps will be compared when the student is verified; not so with a
            method that explains the input itself.

    Raises:
        BadInputError: The format of the teacher's file does not allow what is asked; the student cannot be made or
            does not answer for the teacher's classes; it would have random weights and no training; the maps of the
            two networks cannot be compared; or the card's task forbids a part of the loss.
    """
    check_format(options, teacher.capabilities, format_name=teacher.format, where=where)
    _check_task(teacher, options)
    images = torch.rand(2, *teacher.card.input.shape, generator=torch.Generator().manual_seed(0))
    other = bool(options.distil.student)
    matches = options.matching.loss != "none" and options.matching.beta > 0
    # The agreement of maps is also what early stopping looks at.
    needs_taps = compares_taps or matches or options.finetune.patience > 0
    matching = options.matching
    if not other:
        # A copy: what is trained must not be what it is measured against.
        student = replace(teacher, model=copy.deepcopy(teacher.model))
    else:
        _check_trained(options)
        student = make_student(teacher, options.distil, seed=seed)
        if needs_taps:
            student = with_own_taps(student, teacher, options.matching, images)
            if not matching.taps:
                own = (student.card.tap, *student.card.further_taps)
                matching = replace(matching, student_taps=tuple(name for name in own if name is not None))
        else:
            student = replace(student, card=replace(student.card, tap=None, further_taps=()))
    taps = MatchedTaps((), ())
    if needs_taps:
        card_taps = resolve_taps(teacher.model, teacher.card, images)
        taps = matched_taps(teacher.model, student.model, card_taps, matching, images)
    return Prepared(student, taps, other)


def _check_task(teacher: LoadedModel, options: CompressOptions) -> None:
    if options.distil.weight > 0:
        form_for(options.distil.form, teacher.card.task)
    if options.matching.classes == "positive" and teacher.card.task != "multi-label":
        raise BadInputError(
            "Only a multi-label network has positive classes.",
            where="compress.matching.classes",
            expected="task multi-label in the model card",
            found=f"task {teacher.card.task}",
            hint="say classes: top, or correct the card",
        )


def _check_trained(options: CompressOptions) -> None:
    if options.finetune.epochs == 0:
        raise BadInputError(
            "A student of another architecture starts from random weights and has to be trained.",
            where="compress.finetune.epochs",
            expected="at least 1",
            found="0",
        )
