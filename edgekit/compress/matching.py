"""Attribution matching: what holds the student's map to the teacher's while it is fine-tuned.

Park, Yang, Hwang, Yang, "Attribution Preservation in Network Compression for Reliable Network Interpretation", NeurIPS
2020 (arXiv 2010.15054), and the code released with it (github.com/GeondoPark/attribute-preserve at ed5008a).

Every loss collapses the channels of the tapped activation to one map a sample, `M = sum_i U_i A_i`, so that teacher
and student may differ in channels, and compares the two maps after dividing each by its L2 norm:

    L = 1/N sum_n |M_T / |M_T| - M_S / |M_S||^2 / 49

The released code averages the squares over the cells of the map, and its map is always 7 x 7. We keep its 49 whatever
the size of the map, so a sample's term is `2 (1 - cosine) / 49` everywhere: beta = 100 is the paper's beta = 100 at
7 x 7 and means the same at any other size, a cosine loss of weight 200 / 49 = 4.08.

Maps that are zero (norm at most `EPSILON`):
    The teacher's is: there is nothing to match, and the sample adds nothing. N still counts it. The released code
        adds the constant 1 / 49 for it, which has no gradient, so the gradients are the same.
    The student's alone is: the sample adds 1 / 49 and no gradient, as in the released code; a student whose evidence
        is all negative cannot be pulled back by its map, only by its answers.
Both are counted, for whoever reads the history.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch

from edgekit.compress.options import MatchingOptions
from edgekit.errors import BadInputError
from edgekit.teacher.tap import Tapped

__all__ = [
    "EPSILON",
    "REFERENCE_CELLS",
    "EqualMatching",
    "MatchingLoss",
    "MatchingTerm",
    "NoMatching",
    "SensitivityMatching",
    "StochasticSensitivityMatching",
    "map_distance",
    "sensitivity",
    "sensitivity_map",
]

# Cells of the map in the paper's experiments; see the module's docstring.
REFERENCE_CELLS = 49
EPSILON = 1e-12


@dataclass(frozen=True)
class MatchingTerm:
    """The matching loss of one batch.

    Attributes:
        value: Scalar, 0 to 2/49 for maps that are not negative, before beta; differentiable in the student.
        teacher_zero: Samples whose teacher map is zero, which had nothing to match.
        student_zero: Samples with a teacher map whose student map is zero, which got no gradient.
    """

    value: torch.Tensor
    teacher_zero: int
    student_zero: int


class MatchingLoss(Protocol):
    """One way to compare the maps of two networks.

    Attributes:
        needs_teacher: False where the teacher is not looked at.
        needs_sensitivity: True where gradients of the logits with respect to the tapped activation are taken: the
            teacher's activation must require gradients then, and the student's forward pass must have a graph.
    """

    needs_teacher: bool
    needs_sensitivity: bool

    def __call__(self, teacher: Tapped, student: Tapped, generator: torch.Generator) -> MatchingTerm:
        """Compare one batch.

        Args:
            teacher: Logits [N, K] and activation [N, C, h, w], in evaluation mode.
            student: Logits [N, K] and activation [N, C', h, w] of the same images.
            generator: Source of the loss's randomness, if it has any.

        Raises:
            BadInputError: The maps differ in size.
        """


class NoMatching:
    """No matching: always zero, with nothing to differentiate."""

    needs_teacher = False
    needs_sensitivity = False

    def __init__(self, options: MatchingOptions) -> None:
        del options

    def __call__(self, teacher: Tapped, student: Tapped, generator: torch.Generator) -> MatchingTerm:
        """Zero."""
        del teacher, generator
        return MatchingTerm(student.logits.new_zeros(()), 0, 0)


class EqualMatching:
    """EWA, equally weighted attribution: the mean over channels of the squared activation. Explains no class."""

    needs_teacher = True
    needs_sensitivity = False

    def __init__(self, options: MatchingOptions) -> None:
        del options

    def __call__(self, teacher: Tapped, student: Tapped, generator: torch.Generator) -> MatchingTerm:
        """Compare the mean squared activations."""
        del generator
        return map_distance(teacher.activation.detach().square().mean(dim=1), student.activation.square().mean(dim=1))


class SensitivityMatching:
    """SWA, sensitivity weighted attribution: `relu(sum_i alpha_i A_i)`, Grad-CAM up to a scale.

    Both maps explain the class the teacher answers. The student is differentiated twice, from the tap on: its
    weights alpha move with it, so their gradient counts.
    """

    needs_teacher = True
    needs_sensitivity = True

    def __init__(self, options: MatchingOptions) -> None:
        del options

    def __call__(self, teacher: Tapped, student: Tapped, generator: torch.Generator) -> MatchingTerm:
        """Compare the maps of the teacher's top-1 class."""
        del generator
        return _compared(teacher, student, teacher.activation)


class StochasticSensitivityMatching:
    """SSWA, stochastic SWA: SWA with a share of the teacher's channels left out of the teacher's map.

    One set of `int(C * drop_rate)` channels is drawn for the whole batch. Only the map is affected: the teacher's
    answer and sensitivity are those of the whole network, and the student is never thinned.
    """

    needs_teacher = True
    needs_sensitivity = True

    def __init__(self, options: MatchingOptions) -> None:
        self._drop_rate = options.drop_rate

    def __call__(self, teacher: Tapped, student: Tapped, generator: torch.Generator) -> MatchingTerm:
        """Compare the maps of the teacher's top-1 class, the teacher's without the channels drawn."""
        channels = teacher.activation.shape[1]
        # Rounding must not cost a channel: 100 * 0.29 is a little under 29.
        dropped = torch.randperm(channels, generator=generator)[: int(channels * self._drop_rate + 1e-9)]
        thinned = teacher.activation.detach().clone()
        thinned[:, dropped.to(thinned.device)] = 0
        return _compared(teacher, student, thinned)


def _compared(teacher: Tapped, student: Tapped, shown: torch.Tensor) -> MatchingTerm:
    """SWA's term; `shown` is the teacher's activation as it enters the map."""
    chosen = teacher.logits.detach().argmax(dim=1)
    weights = sensitivity(teacher, chosen, differentiable=False)
    reference = sensitivity_map(weights, shown).detach()
    own = sensitivity_map(sensitivity(student, chosen, differentiable=True), student.activation)
    return map_distance(reference, own)


def sensitivity(tapped: Tapped, chosen: torch.Tensor, *, differentiable: bool) -> torch.Tensor:
    """`alpha_i = sum_hw d(logit)/d(A_i)` of every sample's logit `chosen` [N]: [N, C].

    The gradient is taken with respect to the activation alone, so nothing before the tap is walked back through.
    """
    logits = tapped.logits.gather(1, chosen[:, None]).sum()
    (gradient,) = torch.autograd.grad(logits, tapped.activation, create_graph=differentiable)
    return gradient.sum(dim=(2, 3))


def sensitivity_map(weights: torch.Tensor, activation: torch.Tensor) -> torch.Tensor:
    """`relu(sum_i weights_i A_i)`: [N, C] and [N, C, h, w] to [N, h, w]."""
    return torch.relu((weights[:, :, None, None] * activation).sum(dim=1))


def map_distance(reference: torch.Tensor, own: torch.Tensor) -> MatchingTerm:
    """The squared distance of normalised maps, over 49, averaged over the batch; zero maps as the module says.

    Args:
        reference: The teacher's maps [N, h, w], detached.
        own: The student's maps [N, h, w].

    Raises:
        BadInputError: The maps differ in size.
    """
    if reference.shape != own.shape:
        raise BadInputError(
            "Teacher and student have maps of different sizes, which cannot be matched.",
            expected=f"the teacher's {list(reference.shape[1:])}",
            found=f"the student's {list(own.shape[1:])}",
            hint="choose a tap where both have the same resolution, or set compress.matching.loss to none",
        )
    theirs, their_blank = _unit(reference.flatten(1))
    ours, our_blank = _unit(own.flatten(1))
    each = (theirs - ours).square().sum(dim=1) / REFERENCE_CELLS
    return MatchingTerm(
        value=each.masked_fill(their_blank, 0).mean(),
        teacher_zero=int(their_blank.sum()),
        student_zero=int((our_blank & ~their_blank).sum()),
    )


def _unit(rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows divided by their L2 norm, and which rows are blank; those become zero and pass no gradient."""
    norm = rows.norm(dim=1, keepdim=True)
    blank = norm <= EPSILON
    # Divided by one rather than clamped: a clamped norm would multiply the gradient of a blank row by 1 / EPSILON.
    return (rows / norm.masked_fill(blank, 1)).masked_fill(blank, 0), blank[:, 0]
