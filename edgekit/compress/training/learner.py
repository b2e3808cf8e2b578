"""A student that learns: one step after the other, its constraints kept and its average taken along."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy.typing as npt
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from edgekit.compress.training.average import Average
from edgekit.compress.training.checks import diverged
from edgekit.compress.training.distributed import Processes
from edgekit.compress.training.feed import Feed
from edgekit.compress.training.mixed_precision import half_type
from edgekit.compress.training.optimiser import Optimiser
from edgekit.compress.training.plan import TrainPlan
from edgekit.compress.training.steps import Loss, Step
from edgekit.compress.training.weights import copied, fits, put, tensors_of

__all__ = ["Learner"]


class Learner:
    """The student with everything that its steps move."""

    def __init__(self, student: nn.Module, loss: Loss, feed: Feed, plan: TrainPlan, processes: Processes) -> None:
        """Make the student ready for its first step: mode, gradients, constraints."""
        options = plan.finetune
        self._student, self._loss, self._feed = student, loss, feed
        self._plan, self._processes = plan, processes
        student.train().requires_grad_(True)
        if options.batch_norm == "running":
            for module in student.modules():
                if isinstance(module, _BatchNorm):
                    module.eval()
        self._constrain()
        half = half_type(options.mixed_precision, feed.device)
        scaler = torch.amp.GradScaler(feed.device.type, enabled=half is torch.float16)
        self._optimiser = Optimiser(student, plan, scaler)
        self._average = Average(student, options.ema_decay) if options.ema_decay > 0 else None
        self._called = student

    def wrap(self, indices: npt.NDArray[Any]) -> None:
        """Join the other processes, if there are any; `indices` are of images to try."""
        self._called = self._processes.wrapped(self._student, self._feed.plain(indices))

    def step(self, batch: npt.NDArray[Any], rate: float, generator: torch.Generator, where: str) -> Step:
        """Learn from one batch, of which this process takes its share; the numbers are those of the whole.

        Args:
            batch: Indices of images, at least 2.
            rate: Learning rate.
            generator: Draws the augmentation; the matching loss has been given the same one, which draws after it.
            where: Epoch and step, for errors.

        Raises:
            BadInputError: The loss is not finite, and what `Loss` and `Optimiser` raise.
        """
        positions, counted = self._processes.share(len(batch))
        x, labels = self._feed.varied(batch, positions, generator)
        taps = self._processes.taps(self._plan.matched_in_student)
        loss, own = self._loss(self._called, x, labels, where, taps)
        # Checked once the parts are added up: otherwise one process would stop and the others wait for it.
        step = self._processes.total(own, counted)
        step.check(where)
        self._optimiser.step(self._processes.weighted(loss, counted, len(batch)), rate, where)
        self._constrain()
        if self._average is not None:
            self._average.update(self._student)
        return step

    def _constrain(self) -> None:
        with torch.no_grad():
            for constraint in self._plan.constraints:
                constraint.apply(self._student)

    @contextmanager
    def deployed(self) -> Iterator[nn.Module]:
        """The student with the weights that it would be deployed with: their average, where there is one."""
        if self._average is None:
            yield self._student
            return
        latest = copied(tensors_of(self._student))
        put(self._student, self._average.tensors)
        self._constrain()
        try:
            yield self._student
        finally:
            put(self._student, latest)

    def end(self, tensors: Mapping[str, torch.Tensor] | None) -> None:
        """Leave the student with these weights, or without any with those of `deployed`."""
        if tensors is not None:
            put(self._student, tensors)
        elif self._average is not None:
            put(self._student, self._average.tensors)
            self._constrain()

    def check_weights(self, where: str) -> None:
        """A step can break weights after its loss was still finite; batch normalisation's statistics likewise."""
        for name, tensor in self._student.state_dict().items():
            if tensor.is_floating_point() and not torch.isfinite(tensor).all():
                raise diverged(where, f"{name} is not finite")

    def state(self) -> dict[str, Any]:
        """Tensors, numbers and text from which `restore` goes on."""
        return {
            "student": tensors_of(self._student),
            "optimiser": self._optimiser.state(),
            "average": None if self._average is None else dict(self._average.tensors),
        }

    def accepts(self, state: Mapping[str, Any]) -> bool:
        """Whether `restore` would find what it needs."""
        stored = [state.get("student"), *([] if self._average is None else [state.get("average")])]
        return "optimiser" in state and all(found is not None and fits(self._student, found) for found in stored)

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a state that was stored."""
        put(self._student, state["student"])
        self._optimiser.restore(state["optimiser"])
        if self._average is not None:
            self._average.restore(state["average"])
