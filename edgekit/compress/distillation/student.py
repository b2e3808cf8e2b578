"""Students of another architecture: made from random weights that follow the seed, and given the teacher's card.

Whatever such a student cannot be matched or verified for is found out here, before it is trained.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import torch
from torch import nn

from edgekit.compress.options import DistilOptions, MatchingOptions
from edgekit.compress.training.checks import check_separate
from edgekit.errors import BadInputError
from edgekit.interface.card import ModelCard
from edgekit.teacher.architectures.construct import classes_argument, construct
from edgekit.teacher.checkpoint import LoadedModel
from edgekit.teacher.discovery import find_tap, resolve_tap, resolve_taps, tap_candidates
from edgekit.teacher.loading import check_answers
from edgekit.teacher.tap import Tap, forward_with_taps

__all__ = ["make_student", "with_own_taps"]

_LARGEST_NUMPY_SEED = 2**32


def make_student(teacher: LoadedModel, distil: DistilOptions, *, seed: int) -> LoadedModel:
    """An untrained student with the teacher's classes and input; its card still names the teacher's taps.

    Args:
        teacher: The network it shall learn from; not changed.
        distil: `student` and `arguments` say what it is. The number of classes is filled in where the factory takes
            it and the arguments do not say it.
        seed: Decides the weights.

    Returns:
        The student in evaluation mode, without parameter gradients. No file holds it yet: its digest is empty.

    Raises:
        BadInputError: The architecture is unknown or does not take the arguments, the network does not answer for
            the card's classes or has weights in use elsewhere, or its weights do not follow the seed.
        UnavailableError: The architecture needs a package that is not installed.
    """
    arch, arguments = distil.student, dict(distil.arguments)
    try:
        count = classes_argument(arch)
        if count is not None:
            arguments.setdefault(count, len(teacher.card.classes))
        model, again = (_constructed(arch, arguments, seed) for _ in range(2))
        _check_new(model, teacher.model, arch)
        _check_new(again, model, arch)
        notes = check_answers(model, teacher.card, arch)
        _check_seeded(model, again, arch)
    except BadInputError as cause:
        cause.hint = cause.hint or "correct compress.distil.student and its arguments"
        raise
    return LoadedModel(model, teacher.card, arch, arguments, None, "", notes=notes)


def _constructed(arch: str, arguments: dict[str, object], seed: int) -> nn.Module:
    with _seeded(seed):
        return construct(arch, arguments).float().eval().requires_grad_(False)


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Seed every generator that a factory may draw weights from, and put them back."""
    python, numpy = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=[]):
        try:
            torch.default_generator.manual_seed(seed)
            random.seed(seed)
            np.random.seed(seed % _LARGEST_NUMPY_SEED)
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)


def _check_new(model: nn.Module, other: nn.Module, arch: str) -> None:
    try:
        check_separate(model, other)
    except BadInputError as cause:
        raise BadInputError(
            "The student's factory returns a network whose weights are in use already, by the teacher or by what it "
            "returned before.",
            where=arch,
            expected="a new network with tensors of its own at every call",
            found=cause.found,
            hint="let the factory construct the network anew each time",
        ) from cause


def _check_seeded(model: nn.Module, again: nn.Module, arch: str) -> None:
    first, second = model.state_dict(), again.state_dict()
    differing = [name for name in first if name not in second or not torch.equal(first[name], second[name])]
    if differing:
        raise BadInputError(
            "The student's random weights do not follow the seed, so that no run could be repeated.",
            where=arch,
            expected="equal weights from two calls with the same seed",
            found="others in " + ", ".join(differing[:5]),
            hint="draw weights from torch's global generator, as torch.nn.init does",
        )


def with_own_taps(
    student: LoadedModel, teacher: LoadedModel, matching: MatchingOptions, images: torch.Tensor
) -> LoadedModel:
    """The student with a card that names its own modules for the teacher's taps.

    For each tap of the teacher's card that is, in this order: the module that `matching.student_taps` names for it;
    the module of the same name; or, where the card has one tap, the one that is found.

    Args:
        student: As `make_student` makes it.
        teacher: Whose maps the student's will be compared with.
        matching: `taps` and `student_taps` name modules in pairs; without `taps` those of the teacher's card.
        images: Example, float [N, 3, H, W], N at least 2.

    Raises:
        BadInputError: A module is missing or cannot be a tap, taps are not named in pairs, or a map of the student has
            another size than the teacher's.
    """
    theirs = resolve_taps(teacher.model, teacher.card, images)
    named = _named_pairs([tap.name for tap in theirs], matching)
    ours = tuple(_own_tap(student.model, tap.name, named, images, alone=len(theirs) == 1) for tap in theirs)
    _check_sizes(student.model, teacher.model, list(zip(theirs, ours, strict=True)), images)
    first, *further = (tap.name for tap in ours)
    return replace(student, card=_with_taps(student.card, first, further))


def _with_taps(card: ModelCard, first: str, further: Sequence[str]) -> ModelCard:
    if len({first, *further}) != 1 + len(further):
        raise BadInputError(
            "Two taps of the teacher would be one module of the student.",
            where="compress.matching.student_taps",
            expected="different modules",
            found=", ".join((first, *further)),
        )
    return replace(card, tap=first, further_taps=tuple(further))


def _named_pairs(card_taps: Sequence[str], matching: MatchingOptions) -> dict[str, str]:
    theirs = matching.taps or tuple(card_taps)
    if matching.student_taps and len(matching.student_taps) != len(theirs):
        raise BadInputError(
            "Every tap of the teacher needs one of the student.",
            where="compress.matching.student_taps",
            expected=f"as many as {', '.join(theirs)}",
            found=", ".join(matching.student_taps),
        )
    return dict(zip(theirs, matching.student_taps, strict=False))


def _own_tap(model: nn.Module, theirs: str, named: dict[str, str], images: torch.Tensor, *, alone: bool) -> Tap:
    if theirs in named:
        return resolve_tap(model, named[theirs], images)
    if theirs in dict(model.named_modules()):
        return resolve_tap(model, theirs, images)
    if alone:
        return find_tap(model, images)
    raise BadInputError(
        f"The student has no module {theirs!r}, and with several taps none is found for it.",
        hint="name the student's modules, in the order of the card's taps, with compress.matching.student_taps",
    )


@torch.no_grad()
def _check_sizes(
    student: nn.Module, teacher: nn.Module, pairs: Sequence[tuple[Tap, Tap]], images: torch.Tensor
) -> None:
    theirs = forward_with_taps(teacher, [tap for tap, _ in pairs], images).activations
    ours = forward_with_taps(student, [tap for _, tap in pairs], images).activations
    for (their_tap, own_tap), their_map, own_map in zip(pairs, theirs, ours, strict=True):
        wanted, found = tuple(their_map.shape[2:]), tuple(own_map.shape[2:])
        if wanted != found:
            fitting = [item.tap.name for item in tap_candidates(student, images) if (item.height, item.width) == wanted]
            raise BadInputError(
                "Teacher and student have maps of different sizes, which can be neither matched nor verified.",
                where=f"{their_tap.name!r} of the teacher, {own_tap.name!r} of the student",
                expected=f"maps of {wanted[0]}x{wanted[1]}, as the teacher's",
                found=f"maps of {found[0]}x{found[1]}",
                hint="name a module with such maps in compress.matching.student_taps: " + ", ".join(fitting[-6:])
                if fitting
                else "the student has no module with such maps: choose another tap with --tap, or another student",
            )
