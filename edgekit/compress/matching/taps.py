"""Where maps are matched, in both networks, found and compared in size before anything is trained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from edgekit.compress.matching.losses import tap_weights
from edgekit.compress.options import MatchingOptions
from edgekit.errors import BadInputError
from edgekit.teacher.discovery import resolve_tap
from edgekit.teacher.tap import Tap, forward_with_taps

__all__ = ["MatchedTaps", "matched_taps"]


@dataclass(frozen=True)
class MatchedTaps:
    """As many taps in the teacher as in the student, in the same order."""

    teacher: tuple[Tap, ...]
    student: tuple[Tap, ...]


def matched_taps(
    teacher: nn.Module, student: nn.Module, card_taps: Sequence[Tap], options: MatchingOptions, probe: torch.Tensor
) -> MatchedTaps:
    """The taps that `options` name, or the card's.

    Raises:
        BadInputError: A tap cannot be used, they are not named in pairs, or maps differ in size.
    """
    theirs = tuple(resolve_tap(teacher, name, probe) for name in options.taps) or tuple(card_taps)
    names = options.student_taps or tuple(tap.name for tap in theirs)
    if len(names) != len(theirs):
        raise BadInputError(
            "Every tap of the teacher needs one of the student.", where="compress.matching.student_taps"
        )
    ours = tuple(resolve_tap(student, name, probe) for name in names)
    tap_weights(options, len(theirs))
    with torch.no_grad():
        pairs = zip(
            forward_with_taps(teacher, theirs, probe).activations,
            forward_with_taps(student, ours, probe).activations,
            strict=True,
        )
    for their_map, own_map in pairs:
        if their_map.shape[2:] != own_map.shape[2:]:
            raise BadInputError(
                "Teacher and student have maps of different sizes, which cannot be matched.",
                expected=str(list(their_map.shape[2:])),
                found=str(list(own_map.shape[2:])),
            )
    return MatchedTaps(theirs, ours)
