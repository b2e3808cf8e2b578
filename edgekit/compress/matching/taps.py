"""Where the maps of teacher and student are matched, settled and checked before anything is trained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from edgekit.compress.matching.losses import tap_weights
from edgekit.compress.matching.registry import MATCHING
from edgekit.compress.matching.second_order import differentiable_twice
from edgekit.compress.matching.sensitivity import sensitivities
from edgekit.compress.options import MatchingOptions
from edgekit.compress.training.reproducible import evaluating
from edgekit.errors import BadInputError
from edgekit.teacher.discovery import find_tap, resolve_tap, tap_candidates
from edgekit.teacher.tap import Tap, Tapped, forward_with_taps

__all__ = ["MatchedTaps", "matched_taps"]

_TEACHERS = "compress.matching.taps"
_STUDENTS = "compress.matching.student_taps"
_MOST_NAMED = 8


@dataclass(frozen=True)
class MatchedTaps:
    """Taps whose maps are matched, pair by pair.

    Attributes:
        teacher: Where they live in the teacher.
        student: Where they live in the student, in the same order.
    """

    teacher: tuple[Tap, ...]
    student: tuple[Tap, ...]


def matched_taps(
    teacher: nn.Module, student: nn.Module, card_taps: Sequence[Tap], options: MatchingOptions, probe: torch.Tensor
) -> MatchedTaps:
    """The taps that `options` mean, for these two networks. Their modes and weights stay as they are.

    The teacher's are those that are named, else the card's. The student's are those that are named, else the modules of
    the same names; a student that lacks one of those and has one map to match is matched where its own tap is found.

    Args:
        teacher: The network whose maps are held.
        student: The network to train.
        card_taps: The taps of the card that both share, at least one.
        options: Names and weights; the loss decides whether the student has to be differentiable twice.
        probe: float [N, 3, H, W], N at least 2, prepared like the card's input; any values.

    Raises:
        BadInputError: A module is unknown or unsuitable, or named twice; the networks differ in their number of taps or
            classes, or in the sizes of their maps; there is not one weight a tap; or a layer behind a tap has no second
            derivative.
    """
    with evaluating(teacher), evaluating(student):
        theirs = _named(teacher, options.taps, probe, _TEACHERS) if options.taps else tuple(card_taps)
        ours = _students(student, theirs, options, probe)
        tap_weights(options, len(theirs))
        with torch.no_grad():
            seen = forward_with_taps(teacher, theirs, probe), forward_with_taps(student, ours, probe)
        _check_classes(*seen)
        for their_tap, own_tap, their_map, own_map in zip(
            theirs, ours, seen[0].activations, seen[1].activations, strict=True
        ):
            _check_sizes(student, probe, (their_tap, their_map), (own_tap, own_map))
        if MATCHING.load(options.loss)(options).needs_sensitivity:
            _check_second_derivative(student, ours, probe)
    return MatchedTaps(theirs, ours)


def _students(
    student: nn.Module, theirs: tuple[Tap, ...], options: MatchingOptions, probe: torch.Tensor
) -> tuple[Tap, ...]:
    names = tuple(tap.name for tap in theirs)
    if options.student_taps:
        if len(options.student_taps) != len(theirs):
            raise BadInputError(
                "Teacher and student must be matched at as many taps.",
                where=_STUDENTS,
                expected=f"{len(theirs)}, for the teacher's {', '.join(names)}",
                found=", ".join(options.student_taps),
            )
        return _named(student, options.student_taps, probe, _STUDENTS)
    known = {name for name, _ in student.named_modules()}
    missing = [name for name in names if name not in known]
    if not missing:
        return _named(student, names, probe, _STUDENTS)
    if len(theirs) > 1:
        raise BadInputError(
            "The student lacks modules of the teacher's taps' names, so which maps belong together is not known.",
            where=_STUDENTS,
            expected=", ".join(names),
            found=f"no {', '.join(missing)}",
            hint=f"name the student's modules in {_STUDENTS}, in the same order",
        )
    return (find_tap(student, probe),)


def _named(model: nn.Module, names: Sequence[str], probe: torch.Tensor, where: str) -> tuple[Tap, ...]:
    if len(set(names)) != len(names):
        raise BadInputError("A tap is named twice.", where=where, expected="different modules", found=", ".join(names))
    try:
        return tuple(resolve_tap(model, name, probe) for name in names)
    except BadInputError as error:
        # Which of the two networks is meant is not known where a module is looked for.
        raise BadInputError(
            error.message, where=where, expected=error.expected, found=error.found, hint=error.hint
        ) from error


def _check_classes(theirs: Tapped, ours: Tapped) -> None:
    if theirs.logits.shape[1] != ours.logits.shape[1]:
        raise BadInputError(
            "Teacher and student answer for different classes, so that no map of theirs explains the same.",
            expected=f"the teacher's {theirs.logits.shape[1]} classes",
            found=f"the student's {ours.logits.shape[1]}",
        )


def _check_sizes(
    student: nn.Module, probe: torch.Tensor, theirs: tuple[Tap, torch.Tensor], ours: tuple[Tap, torch.Tensor]
) -> None:
    wanted, found = ((int(pair[1].shape[2]), int(pair[1].shape[3])) for pair in (theirs, ours))
    if wanted == found:
        return
    fitting = [item.tap.name for item in tap_candidates(student, probe) if (item.height, item.width) == wanted]
    size = "{} x {}".format(*wanted)
    named = f"name one of the student's modules with maps of {size} in {_STUDENTS}: " + ", ".join(
        fitting[-_MOST_NAMED:]
    )
    raise BadInputError(
        "Teacher and student have maps of different sizes, which cannot be matched.",
        where=_STUDENTS,
        expected=f"{size}, the teacher's at {theirs[0].name!r}",
        found="{} x {}, the student's at {!r}".format(*found, ours[0].name),
        hint=named
        if fitting
        else f"the student has no map of {size}: choose another tap of the teacher in {_TEACHERS}, or another student",
    )


def _check_second_derivative(student: nn.Module, taps: tuple[Tap, ...], probe: torch.Tensor) -> None:
    student.requires_grad_(True)
    with torch.enable_grad():
        seen = forward_with_taps(student, taps, probe, beyond=differentiable_twice)
        found = sensitivities(seen, seen.logits.argmax(dim=1), differentiable=True)
        # Squared, so that a sensitivity that is a constant has a gradient to ask for as well: zero.
        total = sum((each.square().sum() for each in found), start=seen.logits.sum() * 0)
        try:
            torch.autograd.grad(total, list(student.parameters()), allow_unused=True)
        except RuntimeError as cause:
            if "not implemented" not in str(cause):
                raise
            raise BadInputError(
                "The student cannot be matched by its sensitivity: a layer behind the tap has no second derivative.",
                where=", ".join(tap.name for tap in taps),
                found=str(cause).splitlines()[0],
                hint="match behind that layer, or set compress.matching.loss to ewa, which needs none",
            ) from cause
