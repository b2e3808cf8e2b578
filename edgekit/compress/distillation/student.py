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

from edgekit.compress.matching.taps import matched_taps
from edgekit.compress.options import DistilOptions, MatchingOptions
from edgekit.compress.training.checks import check_separate
from edgekit.errors import BadInputError
from edgekit.teacher.architectures.construct import classes_argument, construct
from edgekit.teacher.checkpoint import LoadedModel
from edgekit.teacher.discovery import resolve_taps
from edgekit.teacher.loading import check_answers

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
        teacher: Whose maps the student's will be compared with, when it is verified.
        matching: `taps` and `student_taps` name modules in pairs; without `taps` those of the teacher's card.
        images: Example, float [N, 3, H, W], N at least 2.

    Raises:
        BadInputError: As `matched_taps`: a map of the student has another size than the teacher's, say.
    """
    card_taps = resolve_taps(teacher.model, teacher.card, images)
    # Compared, whatever they are trained for.
    named = _partners(student.model, [tap.name for tap in card_taps], matching)
    asked = MatchingOptions(loss="none", student_taps=named)
    taps = matched_taps(teacher.model, student.model, card_taps, asked, images).student
    card = replace(student.card, tap=taps[0].name, further_taps=tuple(tap.name for tap in taps[1:]))
    return replace(student, card=card)


def _partners(student: nn.Module, card_taps: Sequence[str], matching: MatchingOptions) -> tuple[str, ...]:
    """The student's modules for the card's taps, as far as names tell; none where one of them has to be found."""
    if matching.student_taps and not matching.taps:
        return matching.student_taps
    # Whether every name has its partner is checked where the taps of training are settled.
    named = dict(zip(matching.taps, matching.student_taps, strict=False))
    known = {name for name, _ in student.named_modules()}
    partners = [named.get(tap, tap if tap in known else None) for tap in card_taps]
    found = tuple(name for name in partners if name is not None)
    return found if len(found) == len(partners) else ()
