"""By what a stored run is known again: everything that decides how it goes on."""

from __future__ import annotations

from dataclasses import asdict

import torch
from torch import nn

from edgekit.compress.training.batches import TrainingImages, digest_images
from edgekit.compress.training.plan import TrainPlan
from edgekit.compress.training.weights import digest_weights
from edgekit.core.canonical import JsonValue, dump_canonical
from edgekit.core.digests import digest_bytes

__all__ = ["identity_of"]


def identity_of(
    student: nn.Module, teacher: nn.Module, images: TrainingImages, plan: TrainPlan, processes: int = 1
) -> str:
    """One digest for a run: networks, images, plan, torch's version, kind of device and number of processes.

    Constraints have no form that could be written down. The student is digested after they were applied to it, so that
    masks that differ tell runs apart.

    Args:
        student: As it is before the first step.
        teacher: The teacher.
        images: The training images.
        plan: The plan; its name is of no consequence.
        processes: How many train together.
    """
    described: JsonValue = {
        "card": plan.card.to_dict(),
        "constraints": [type(constraint).__qualname__ for constraint in plan.constraints],
        "device": next(student.parameters()).device.type,
        "distil": {**asdict(plan.distil), "arguments": None, "student": None},
        "finetune": asdict(plan.finetune),
        "images": digest_images(images),
        "learning_rates": dict(plan.learning_rates),
        "matching": asdict(plan.matching),
        "processes": processes,
        "seed": plan.seed,
        "student": digest_weights(student),
        "taps": [[asdict(tap) for tap in taps] for taps in (plan.taps, plan.student_taps)],
        "teacher": digest_weights(teacher),
        "threads": plan.threads or torch.get_num_threads(),
        "torch": str(torch.__version__),
        "undecayed": sorted(plan.undecayed),
    }
    return digest_bytes(dump_canonical(described))
