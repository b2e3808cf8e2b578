"""Training a compressed network while its map is held to the teacher's (Park et al. 2020).

The teacher is in evaluation mode throughout (in the released code it is not always, and its map then moves). The
student is in training mode, and with `batch_norm: batch` so are its batch normalisations: its activations follow the
batch, while its sensitivity holds their statistics (`edgekit.compress.matching.second_order`).
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from edgekit.compress.training.batches import TrainingImages, held_back, training_indices
from edgekit.compress.training.checkpoint import Checkpoints
from edgekit.compress.training.checks import check_alike, check_enough, check_separate, check_statistics
from edgekit.compress.training.course import Course
from edgekit.compress.training.distributed import Processes, joined
from edgekit.compress.training.feed import Feed
from edgekit.compress.training.identity import identity_of
from edgekit.compress.training.learner import Learner
from edgekit.compress.training.mixed_precision import half_type
from edgekit.compress.training.monitor import Monitor
from edgekit.compress.training.plan import EpochRecord, TrainPlan
from edgekit.compress.training.reproducible import channels_last, evaluating, reproducible
from edgekit.compress.training.steps import Loss
from edgekit.core.progress import NULL_OBSERVER, Observer

__all__ = ["train"]


def train(
    student: nn.Module,
    teacher: nn.Module,
    images: TrainingImages,
    plan: TrainPlan,
    observer: Observer = NULL_OBSERVER,
    *,
    workplace: Path | None = None,
) -> tuple[EpochRecord, ...]:
    """Train `student` in place; it is left in evaluation mode without parameter gradients.

    Among several processes (`torchrun`, or a process group that the caller joined) each calls this with the same
    arguments and has the same student and records afterwards; see `edgekit.compress.training.distributed`.

    Args:
        student: The network to train.
        teacher: The network whose maps are held and whose answers are learned; not changed, and of no consequence
            without matching, distillation and `patience`.
        images: Labelled images at the card's input size; those without a label are left out.
        plan: How.
        observer: Told after every step, with the parts of the loss.
        workplace: A folder for this run alone, with the log of its steps and, from the end of the first epoch on, its
            checkpoint. Killed and called again with the same arguments, the run goes on and ends in the same bytes
            and records; one that had ended ends again at once. None for neither.

    Returns:
        One record an epoch. The same on the same machine with the same seed and threads, whatever the process did
        before.

    Raises:
        BadInputError: The networks share weights or answer for other classes than the card's, their maps differ in
            size, the teacher's maps are all zero, the images cannot be trained on, the precision or batch statistics
            cannot be had here, the workplace cannot be written to, or the loss is not finite.
        UnavailableError: The log needs a package that is not installed, or the disk is full.
    """
    check_separate(student, teacher)
    device = next(student.parameters()).device
    half_type(plan.finetune.mixed_precision, device)
    with joined(device) as processes:
        check_statistics(student, plan.finetune, processes.size)
        with (
            reproducible(plan.seed, plan.threads, device, processes.rank) as generator,
            evaluating(teacher),
            channels_last(student, teacher),
        ):
            try:
                course = _planned(student, teacher, images, plan, generator, processes)
                checkpoints = None
                if workplace is not None:
                    identity = identity_of(student, teacher, images, plan, processes.size)
                    checkpoints = Checkpoints(workplace, identity)
                return course.run(workplace, checkpoints, observer if processes.first else NULL_OBSERVER)
            finally:
                student.eval().requires_grad_(False)


def _planned(
    student: nn.Module,
    teacher: nn.Module,
    images: TrainingImages,
    plan: TrainPlan,
    generator: torch.Generator,
    processes: Processes,
) -> Course:
    """The course from its beginning, once everything that could stand in its way is checked."""
    options, card = plan.finetune, plan.card
    feed = Feed(images, card.input, options, next(student.parameters()).device)
    half = half_type(options.mixed_precision, feed.device)
    loss = Loss(teacher, plan, generator, half)
    indices = training_indices(images.labels, card.classes, options.max_images, generator, task=card.task)
    judged = None
    if options.patience:
        indices, judged = held_back(images.labels, indices, options.held_back, generator)
    check_enough(len(indices), None if judged is None else len(judged))
    compared = loss.matches or judged is not None
    asked = teacher if loss.asks_teacher or compared else None
    check_alike(student, asked, feed.plain(indices[:2]), plan, maps=compared)
    monitor = None if judged is None else Monitor(teacher, feed, judged, plan)
    learner = Learner(student, loss, feed, plan, processes)
    learner.wrap(indices[:2])
    return Course(plan, learner, indices, generator, feed.device, processes, loss.matches, monitor)
