"""Attribution matching: what holds the student's map to the teacher's while it is trained.

Park, Yang, Hwang, Yang, "Attribution Preservation in Network Compression for Reliable Network Interpretation", NeurIPS
2020 (arXiv 2010.15054), and the code released with it (github.com/GeondoPark/attribute-preserve at ed5008a).

Every loss collapses the channels of a tapped activation to one map a sample, `M = sum_i U_i A_i`, so that teacher and
student may differ in channels, and compares the two maps as `edgekit.compress.matching.distance` says. The paper has
one tap and the teacher's top class. With several taps the term is their weighted mean; with several classes a sample,
the mean over the maps it has.

Where the student is in training mode and a batch normalisation lies between tap and answer, its sensitivity is taken
with the batch's statistics held (`edgekit.compress.matching.second_order`), as the deployed network has them. Measured
on the demo's classifier, half of its channels cut, three epochs of distillation and four with SWA, two seeds, mean
cosine of evaluation-mode maps on other images, at the first and the second of three stages: 0.51 and 0.52, 0.37 and
0.35 with them held; 0.34 and 0.31, 0.35 and 0.33 with the sensitivity through them; 0.25 and 0.46, 0.28 and 0.33 with
stored statistics (`batch_norm: running`), which costs accuracy and diverges on a network just cut. At the last stage,
with nothing behind it, all are alike.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch

from edgekit.compress.matching.distance import MapDistances, map_distances
from edgekit.compress.matching.protocol import MatchingTerm
from edgekit.compress.matching.sensitivity import sensitivities, sensitivity_map, single
from edgekit.compress.options import MatchingOptions
from edgekit.errors import BadInputError
from edgekit.teacher.tap import Tapped

__all__ = ["EqualMatching", "NoMatching", "SensitivityMatching", "StochasticSensitivityMatching", "tap_weights"]


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
        self._options = options

    def __call__(self, teacher: Tapped, student: Tapped, generator: torch.Generator) -> MatchingTerm:
        """Compare the mean squared activations."""
        del generator
        _check_alike(teacher, student)
        distances = [
            map_distances(_energy(theirs.detach()), _energy(ours), self._options.distance)
            for theirs, ours in zip(teacher.activations, student.activations, strict=True)
        ]
        return _term([distances], tap_weights(self._options, len(distances)))


def _energy(activation: torch.Tensor) -> torch.Tensor:
    return single(activation).square().mean(dim=1)


class SensitivityMatching:
    """SWA, sensitivity weighted attribution: `relu(sum_i alpha_i A_i)`, Grad-CAM up to a scale.

    Both maps explain a class that the teacher answers. The student is differentiated twice, from the tap on: its
    weights alpha move with it, so their gradient counts.
    """

    needs_teacher = True
    needs_sensitivity = True

    def __init__(self, options: MatchingOptions) -> None:
        self._options = options

    def __call__(self, teacher: Tapped, student: Tapped, generator: torch.Generator) -> MatchingTerm:
        """Compare the maps of the teacher's top-1 class, or of all its positive ones."""
        _check_alike(teacher, student)
        shown = self._shown(teacher.activations, generator)
        classes = list(_chosen(teacher.logits.detach(), self._options.classes))
        found = [self._of_class(teacher, student, shown, chosen, counted) for chosen, counted in classes]
        return _term(found, tap_weights(self._options, len(shown)))

    def _shown(self, activations: tuple[torch.Tensor, ...], generator: torch.Generator) -> tuple[torch.Tensor, ...]:
        """The teacher's activations as they enter its map."""
        del generator
        return tuple(activation.detach() for activation in activations)

    def _of_class(
        self,
        teacher: Tapped,
        student: Tapped,
        shown: tuple[torch.Tensor, ...],
        chosen: torch.Tensor,
        counted: torch.Tensor,
    ) -> list[MapDistances]:
        """Every tap's distances for one class a sample; samples that are not `counted` have no map to match."""
        pooling = self._options.pooling
        theirs = sensitivities(teacher, chosen, differentiable=False, pooling=pooling)
        ours = sensitivities(student, chosen, differentiable=True, pooling=pooling)
        return [
            map_distances(
                sensitivity_map(their_weights, activation) * counted[:, None, None],
                sensitivity_map(own_weights, own),
                self._options.distance,
            )
            for their_weights, activation, own_weights, own in zip(
                theirs, shown, ours, student.activations, strict=True
            )
        ]


class StochasticSensitivityMatching(SensitivityMatching):
    """SSWA, stochastic SWA: SWA with a share of the teacher's channels left out of the teacher's map.

    One set of `int(C * drop_rate)` channels is drawn for the whole batch. Only the map is affected: the teacher's
    answer and sensitivity are those of the whole network, and the student is never thinned.
    """

    def _shown(self, activations: tuple[torch.Tensor, ...], generator: torch.Generator) -> tuple[torch.Tensor, ...]:
        """Activations without the channels drawn."""
        thinned = []
        for activation in super()._shown(activations, generator):
            channels = activation.shape[1]
            # Rounding must not cost a channel: 100 * 0.29 is a little under 29.
            dropped = torch.randperm(channels, generator=generator)[: int(channels * self._options.drop_rate + 1e-9)]
            kept = torch.ones(channels, dtype=activation.dtype, device=activation.device)
            kept[dropped.to(activation.device)] = 0
            thinned.append(activation * kept[:, None, None])
        return tuple(thinned)


def tap_weights(options: MatchingOptions, taps: int) -> tuple[float, ...]:
    """The share of each tap in the term, adding up to 1.

    Raises:
        BadInputError: There are weights for another number of taps.
    """
    weights = options.weights or (1.0,) * taps
    if len(weights) != taps:
        raise BadInputError(
            "Every matched tap needs one weight.",
            where="compress.matching.weights",
            expected=f"{taps} weights",
            found=str(len(weights)),
        )
    return tuple(weight / sum(weights) for weight in weights)


def _chosen(logits: torch.Tensor, classes: str) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Classes [N] to explain, one after the other, and which samples [N] have as many."""
    if classes == "top":
        yield logits.argmax(dim=1), logits.new_ones(len(logits))
        return
    ranked = logits.sort(dim=1, descending=True, stable=True)
    # A sample without a positive answer is explained by its top one, as everywhere else.
    most = max(1, int((logits > 0).sum(dim=1).max()))
    for rank in range(most):
        counted = (ranked.values[:, rank] > 0) if rank else torch.ones_like(ranked.values[:, 0])
        yield ranked.indices[:, rank], counted.to(logits.dtype)


def _term(found: list[list[MapDistances]], weights: tuple[float, ...]) -> MatchingTerm:
    """From distances by class and tap to the batch's term: mean over a sample's maps, weighted over taps."""
    teacher_zero = torch.stack([tap.teacher_zero for maps in found for tap in maps])
    student_zero = torch.stack([tap.student_zero for maps in found for tap in maps])
    total = found[0][0].each.new_zeros(())
    for position, weight in enumerate(weights):
        each = torch.stack([maps[position].each for maps in found])
        present = torch.stack([~maps[position].teacher_zero for maps in found]).sum(dim=0)
        total = total + weight * (each.sum(dim=0) / present.clamp_min(1)).mean()
    nothing = teacher_zero.all(dim=0)
    blank = (student_zero | teacher_zero).all(dim=0) & ~nothing
    # Read together: each reading waits for a GPU.
    without_teacher, without_student = torch.stack([nothing.sum(), blank.sum()]).tolist()
    return MatchingTerm(total, without_teacher, without_student)


def _check_alike(teacher: Tapped, student: Tapped) -> None:
    for what, theirs, ours in (
        ("classes", teacher.logits.shape[1], student.logits.shape[1]),
        ("taps", len(teacher.activations), len(student.activations)),
    ):
        if theirs != ours:
            raise BadInputError(
                f"Teacher and student differ in {what}, so that their maps cannot be matched.",
                expected=f"the teacher's {theirs}",
                found=f"the student's {ours}",
            )
