"""Training a compressed network while its map is held to the teacher's (Park et al. 2020).

The teacher is in evaluation mode throughout (in the released code it is not always, and its map then moves). The
student is in training mode, and with `batch_norm: batch` so are its batch normalisations: its map is then that of
training mode, and where one of them lies between tap and answer its sensitivity goes through batch statistics.
"""

from __future__ import annotations

from typing import Any

import numpy.typing as npt
import torch
from torch import nn

from edgekit.compress.training.batches import TrainingImages, training_indices, varied, visiting_order
from edgekit.compress.training.checks import check_separate, diverged
from edgekit.compress.training.plan import EpochRecord, TrainPlan
from edgekit.compress.training.reproducible import channels_last, evaluating, reproducible
from edgekit.compress.training.schedule import learning_rate_at
from edgekit.compress.training.steps import Loss, Step, summed
from edgekit.core.progress import NULL_OBSERVER, Observer
from edgekit.errors import BadInputError
from edgekit.interface.preprocess import preprocess

__all__ = ["train"]

_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)


def train(
    student: nn.Module,
    teacher: nn.Module,
    images: TrainingImages,
    plan: TrainPlan,
    observer: Observer = NULL_OBSERVER,
) -> tuple[EpochRecord, ...]:
    """Train `student` in place; it is left in evaluation mode without parameter gradients.

    Args:
        student: The network to train.
        teacher: The network whose maps are held and whose answers are learned; not changed, and of no consequence
            without matching and distillation.
        images: Labelled images at the card's input size; those without a label are left out.
        plan: How.
        observer: Told after every step, with the parts of the loss.

    Returns:
        One record an epoch. The same on the same machine with the same seed and threads, whatever the process did
        before.

    Raises:
        BadInputError: The networks share weights or answer for other classes than the card's, their maps differ in
            size, the teacher's maps are all zero, the images cannot be trained on, or the loss is not finite.
    """
    check_separate(student, teacher)
    with reproducible(plan.seed, plan.threads) as generator, evaluating(teacher), channels_last(student, teacher):
        indices = training_indices(images.labels, plan.card.classes, plan.finetune.max_images, generator)
        run = _Run(student, teacher, images, plan, generator)
        run.check_answers(indices[:2])
        try:
            run.begin()
            return tuple(run.epoch(epoch, indices, observer) for epoch in range(1, plan.finetune.epochs + 1))
        finally:
            student.eval().requires_grad_(False)


class _Run:
    """One training run: what stays the same over its steps."""

    def __init__(
        self,
        student: nn.Module,
        teacher: nn.Module,
        images: TrainingImages,
        plan: TrainPlan,
        generator: torch.Generator,
    ) -> None:
        self._student, self._teacher = student, teacher
        self._plan, self._generator = plan, generator
        # Looked up once: a set may decode or gather them whenever it is asked.
        self._pixels, self._labels = images.pixels, images.labels
        self._loss = Loss(teacher, plan, generator)
        self._device = next(student.parameters()).device
        self._optimiser = _optimiser(student, plan)
        self._done = 0

    def check_answers(self, indices: npt.NDArray[Any]) -> None:
        """Raise unless both networks answer for the card's classes."""
        wanted = (len(indices), len(self._plan.card.classes))
        networks = {"student": self._student}
        if self._loss.asks_teacher:
            networks["teacher"] = self._teacher
        for name, model in networks.items():
            with evaluating(model), torch.no_grad():
                found = tuple(model(self._prepared(indices, vary=False)).shape)
            if found != wanted:
                raise BadInputError(
                    f"The {name} does not answer for the card's classes.",
                    expected=f"logits {list(wanted)} for {wanted[1]} classes",
                    found=f"logits {list(found)}",
                )

    def begin(self) -> None:
        """Make the student ready for its first step."""
        self._student.train().requires_grad_(True)
        if self._plan.finetune.batch_norm == "running":
            for module in self._student.modules():
                if isinstance(module, _NORMS):
                    module.eval()
        self._constrain()

    def epoch(self, number: int, indices: npt.NDArray[Any], observer: Observer) -> EpochRecord:
        """One pass over the images."""
        options = self._plan.finetune
        batches = list(visiting_order(indices, options.batch_size, self._generator))
        total = len(batches) * options.epochs
        first_rate = learning_rate_at(options, self._done, total)
        steps: list[Step] = []
        for position, batch in enumerate(batches, start=1):
            rate = learning_rate_at(options, self._done, total)
            for group in self._optimiser.param_groups:
                group["lr"] = rate / options.learning_rate * group["full_rate"]
            step = self._step(batch, where=f"epoch {number} of {options.epochs}, step {position} of {len(batches)}")
            steps.append(step)
            self._done += 1
            observer.advanced(self._plan.name, self._done, total, self._described(number, step, rate))
        self._check_weights(number)
        return summed(self._plan, number, first_rate, steps, matches=self._loss.matches)

    def _step(self, batch: npt.NDArray[Any], where: str) -> Step:
        x = self._prepared(batch, vary=True)
        labels = torch.from_numpy(self._labels[batch]).to(self._device)
        loss, step = self._loss(self._student, x, labels, where)
        self._optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self._optimiser.step()
        self._constrain()
        return step

    def _constrain(self) -> None:
        with torch.no_grad():
            for constraint in self._plan.constraints:
                constraint.apply(self._student)

    def _prepared(self, indices: npt.NDArray[Any], *, vary: bool) -> torch.Tensor:
        pixels = self._pixels[indices]
        if vary:
            pixels = varied(pixels, self._plan.finetune, self._generator)
        return torch.from_numpy(preprocess(pixels, self._plan.card.input)).to(self._device)

    def _described(self, epoch: int, step: Step, rate: float) -> str:
        parts = [f"{(1 - self._plan.distil.weight) * step.supervised:.4f} supervised"]
        if self._plan.distil.weight > 0:
            parts.append(f"{self._plan.distil.weight * step.distillation:.4f} distillation")
        if self._loss.matches:
            parts.append(f"{self._plan.matching.beta * step.term:.4f} matching")
        total = f" = {' + '.join(parts)}" if len(parts) > 1 else ""
        return f"epoch {epoch}/{self._plan.finetune.epochs}, loss {step.loss:.4f}{total}, rate {rate:.2g}"

    def _check_weights(self, epoch: int) -> None:
        """A step can break weights after its loss was still finite; batch normalisation's statistics likewise."""
        for name, tensor in self._student.state_dict().items():
            if tensor.is_floating_point() and not torch.isfinite(tensor).all():
                raise diverged(f"end of epoch {epoch} of {self._plan.finetune.epochs}", f"{name} is not finite")


def _optimiser(student: nn.Module, plan: TrainPlan) -> torch.optim.Optimizer:
    """SGD with a group for every combination of learning rate and weight decay."""
    options = plan.finetune
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in student.named_parameters():
        rate = plan.learning_rates.get(name, options.learning_rate)
        decay = 0.0 if name in plan.undecayed else options.weight_decay
        groups.setdefault((rate, decay), []).append(parameter)
    return torch.optim.SGD(
        [
            {"params": parameters, "lr": rate, "full_rate": rate, "weight_decay": decay}
            for (rate, decay), parameters in groups.items()
        ],
        lr=options.learning_rate,
        momentum=options.momentum,
    )
