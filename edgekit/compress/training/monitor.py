"""What the gate would say of a student while it is trained: its maps and answers on images held back from training.

Measured as at the gate: Grad-CAM of the teacher's class at the matched taps, in evaluation mode, float32, and with the
weights that would be deployed (the average, where there is one). Maps are compared by the metric that the shipped
policies judge single samples by, the cosine, under the gate's own rules for maps that are zero and with the worst of
several taps counting (`edgekit.metrics.agreement`). A policy also bounds the share of answers that change. So that one
number decides between epochs, a sample whose answer changed counts as 0, however close its map may be; one whose map
vanished counts as -1, the metric's worst. The mean over samples is used rather than the share above a threshold, which
a hundred held-back images would give in steps of one in a hundred.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from edgekit.compress.training.checks import check_teacher, dead_tap
from edgekit.compress.training.feed import Feed
from edgekit.compress.training.plan import TrainPlan
from edgekit.compress.training.reproducible import evaluating
from edgekit.compress.training.tap_graph import graph_from
from edgekit.metrics.agreement import score_agreement, worst_of
from edgekit.teacher.methods.grad_cam import GRAD_CAM
from edgekit.teacher.tap import Tap, forward_with_taps

__all__ = ["GATE_METRIC", "Monitor"]

GATE_METRIC = "cosine"


class Monitor:
    """Agreement with the teacher on held-back images, which it is asked about once."""

    def __init__(self, teacher: nn.Module, feed: Feed, held_back: npt.NDArray[Any], plan: TrainPlan) -> None:
        """Ask the teacher.

        Raises:
            BadInputError: Its answers are not finite, or its map is zero on every image.
        """
        self._feed, self._held_back, self._plan = feed, held_back, plan
        batches = [self._seen(teacher, plan.taps, batch, None) for batch in self._batches()]
        self._answers = torch.cat([answers for answers, _ in batches])
        self._maps = _joined([maps for _, maps in batches])
        if not any(maps.any() for maps in self._maps):
            raise dead_tap(plan.taps, "held-back")

    def agreement(self, student: nn.Module) -> float:
        """The mean over held-back images, -1 to 1; see the module's docstring. Those without any map are left out."""
        found = []
        start = 0
        for batch in self._batches():
            chosen = self._answers[start : start + len(batch)]
            found.append(self._seen(student, self._plan.matched_in_student, batch, chosen))
            start += len(batch)
        maps = _joined([each for _, each in found])
        cosine = worst_of(
            [score_agreement(theirs, ours, [GATE_METRIC]) for theirs, ours in zip(self._maps, maps, strict=True)]
        ).metrics[GATE_METRIC]
        kept = (torch.cat([answers for answers, _ in found]) == self._answers).cpu().numpy()
        counted = np.where(kept, cosine, np.minimum(cosine, 0.0))
        return float(np.nanmean(counted))

    def _batches(self) -> Iterator[npt.NDArray[Any]]:
        size = self._plan.finetune.batch_size
        for start in range(0, len(self._held_back), size):
            yield self._held_back[start : start + size]

    def _seen(
        self, model: nn.Module, taps: tuple[Tap, ...], batch: npt.NDArray[Any], chosen: torch.Tensor | None
    ) -> tuple[torch.Tensor, list[npt.NDArray[np.float32]]]:
        """Answers int64 [n], and at each tap the maps [n, h, w] of classes `chosen`, or of the answers."""
        with evaluating(model), graph_from(model, taps):
            seen = forward_with_taps(model, taps, self._feed.plain(batch))
        answers = seen.logits.detach().argmax(dim=1)
        if chosen is None:
            check_teacher(seen.logits, "held-back images")
            chosen = answers
        explained = seen.logits.gather(1, chosen[:, None]).sum()
        gradients = torch.autograd.grad(explained, seen.activations)
        with torch.no_grad():
            maps = [GRAD_CAM(*pair) for pair in zip(seen.activations, gradients, strict=True)]
        return answers, [each.float().cpu().numpy() for each in maps]


def _joined(batches: list[list[npt.NDArray[np.float32]]]) -> list[npt.NDArray[np.float32]]:
    """Maps by tap from maps by batch and tap."""
    return [np.concatenate(maps) for maps in zip(*batches, strict=True)]
