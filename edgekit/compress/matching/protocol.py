"""The seam of matching losses: two networks' answers and activations in, one differentiable term out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch

from edgekit.teacher.tap import Tapped

__all__ = ["MatchingLoss", "MatchingTerm"]


@dataclass(frozen=True)
class MatchingTerm:
    """The matching loss of one batch.

    Attributes:
        value: Scalar of float32 or better, 0 to 2/49 (1 with the distance `cosine`) since no map is negative, before
            beta; differentiable in the student.
        teacher_zero: Samples without any teacher map that is not zero, which had nothing to match.
        student_zero: Samples that had something to match, all of whose student maps are zero: they got no gradient.
    """

    value: torch.Tensor
    teacher_zero: int
    student_zero: int


class MatchingLoss(Protocol):
    """One way to compare the maps of two networks.

    Attributes:
        needs_teacher: False where the teacher is not looked at.
        needs_sensitivity: True where gradients of the logits with respect to the tapped activations are taken: the
            teacher's activations must require gradients then, and the student's forward pass must have a graph.
    """

    needs_teacher: bool
    needs_sensitivity: bool

    def __call__(self, teacher: Tapped, student: Tapped, generator: torch.Generator) -> MatchingTerm:
        """Compare one batch.

        Args:
            teacher: Logits [N, K] and an activation [N, C, h, w] a tap, in evaluation mode.
            student: Logits [N, K] and as many activations [N, C', h, w] of the same images; where `needs_sensitivity`,
                made with `forward_with_taps(..., beyond=differentiable_twice)`.
            generator: Source of the loss's randomness, if it has any.

        Raises:
            BadInputError: The networks differ in classes, in taps, or in the sizes of their maps.
        """
