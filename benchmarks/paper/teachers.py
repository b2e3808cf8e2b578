"""Teachers: published weights below a new head, trained on a data set's train split."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from edgekit.compress.options import MatchingOptions
from edgekit.compress.training.plan import TrainPlan
from edgekit.compress.training.trainer import train
from paper.context import Context
from paper.units import Unit

__all__ = ["WEIGHTS_NAME", "load_teacher", "train_teacher"]

WEIGHTS_NAME = "weights.pt"


def train_teacher(unit: Unit, context: Context) -> tuple[nn.Module, float]:
    """A trained teacher, on the profile's device, and the accuracy in its last epoch.

    The seed decides the new head, the choice and order of images and their augmentation. CIFAR-10's classes are those
    of the published weights: there the head stays, and teachers of different seeds are closer to each other.
    """
    setting, profile = context.setting(unit), context.settings
    model = setting.network.pretrained(setting.card.classes, unit.seed, context.shared).to(profile.device)
    plan = TrainPlan(
        card=setting.card,
        taps=(),
        finetune=profile.teacher(unit.dataset, unit.network),
        matching=MatchingOptions(loss="none"),
        seed=unit.seed,
        threads=context.threads,
        name=unit.name,
    )
    # Without matching and distillation nobody asks the teacher's teacher.
    records = train(model, nn.Identity(), setting.train, plan)
    return model, records[-1].accuracy


def load_teacher(unit: Unit, context: Context) -> nn.Module:
    """The trained teacher of a unit whose result is there, in evaluation mode without parameter gradients."""
    setting = context.setting(unit)
    model = setting.network.random(len(setting.card.classes), unit.seed)
    path: Path = context.folder(unit) / WEIGHTS_NAME
    model.load_state_dict(torch.load(path, weights_only=True, map_location="cpu"))
    return model.to(context.settings.device).eval().requires_grad_(False)
