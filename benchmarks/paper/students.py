"""Students: each kind of compression, trained with whichever matching loss, everything else alike."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from types import MappingProxyType
from typing import Any

from torch import nn

from edgekit.compress.options import FinetuneOptions, MatchingOptions
from edgekit.compress.pruning.structured import Pruned, prune
from edgekit.compress.training.plan import Constraint, EpochRecord, TrainPlan
from edgekit.compress.training.trainer import train
from paper.compared import Compared, torch_compared
from paper.context import Context, Setting
from paper.profiles import Recipe
from paper.scrambled_head import scrambled_head
from paper.units import Unit, int8_of

__all__ = ["KINDS", "Case", "Student", "make_student"]


@dataclass(frozen=True)
class Student:
    """A compressed network.

    Attributes:
        compared: For the evaluation.
        history: Training, epoch by epoch, over all rounds.
        facts: What its kind has to say, JSON-ready.
    """

    compared: Compared
    history: tuple[EpochRecord, ...]
    facts: Mapping[str, Any]


@dataclass(frozen=True)
class Case:
    """Everything a kind of compression is given.

    Attributes:
        unit: Which student.
        context: The run.
        setting: Data and network.
        teacher: In evaluation mode; not to be changed.
        recipe: How.
    """

    unit: Unit
    context: Context
    setting: Setting
    teacher: nn.Module
    recipe: Recipe

    @property
    def matching(self) -> MatchingOptions:
        """The unit's loss at the unit's beta."""
        beta = self.context.settings.beta if self.unit.beta is None else self.unit.beta
        return MatchingOptions(loss=self.unit.loss, beta=beta)

    def plan(self, finetune: FinetuneOptions, constraints: tuple[Constraint, ...] = ()) -> TrainPlan:
        """A training run of this student."""
        return TrainPlan(
            card=self.setting.card,
            taps=(self.setting.network.matched,),
            finetune=finetune,
            matching=self.matching,
            distil=self.recipe.distil,
            constraints=constraints,
            seed=self.unit.seed,
            threads=self.context.threads,
            name=self.unit.name,
        )

    def trained(self, student: nn.Module, plan: TrainPlan) -> tuple[EpochRecord, ...]:
        """Train in place."""
        return train(student, self.teacher, self.setting.train, plan)

    def finished(self, student: nn.Module, history: tuple[EpochRecord, ...], **facts: Any) -> Student:
        """A torch network that is deployed as it is."""
        compared = torch_compared(student, self.setting.network.matched)
        parameters = sum(parameter.numel() for parameter in student.parameters())
        return Student(compared, history, {"parameters": parameters, **facts})


def make_student(unit: Unit, context: Context, teacher: nn.Module) -> Student:
    """The student of a unit, trained."""
    recipe = context.settings.recipe(unit.dataset, unit.network, unit.kind)
    return KINDS[unit.kind](Case(unit, context, context.setting(unit), teacher, recipe))


def _structured(case: Case) -> Student:
    pruned = _pruned(case)
    student = pruned.model.to(case.context.settings.device)
    return case.finished(student, case.trained(student, case.plan(case.recipe.finetune)))


def _pruned(case: Case) -> Pruned:
    # Dependencies are traced on the processor, wherever the network is trained.
    teacher = copy.deepcopy(case.teacher).cpu()
    return prune(teacher, case.recipe.prune, case.setting.card.input.shape)


def _scrambled(case: Case) -> Student:
    """As the released code: the same cut, and the head's columns picked in the wrong order."""
    pruned = _pruned(case)
    student = scrambled_head(copy.deepcopy(case.teacher).cpu(), pruned.surgery, pruned.model)
    student = student.to(case.context.settings.device)
    return case.finished(student, case.trained(student, case.plan(case.recipe.finetune)))


def _distilled(case: Case) -> Student:
    """A network of half the width, from random weights that differ from the teacher's first ones."""
    classes = len(case.setting.card.classes)
    student = case.setting.network.random(classes, seed=1000 + case.unit.seed, narrow=True)
    student.to(case.context.settings.device)
    return case.finished(student, case.trained(student, case.plan(case.recipe.finetune)))


def _unstructured(case: Case) -> Student:
    """Weights held at zero, more of them round by round; the last round is the longest."""
    from edgekit.compress.sparsity.magnitude import masks_for
    from edgekit.compress.sparsity.rounds import sparsities

    targets = sparsities(case.recipe.sparsify)
    student, masks = copy.deepcopy(case.teacher), None
    history: tuple[EpochRecord, ...] = ()
    last = case.recipe.finetune
    between = replace(
        last, epochs=case.recipe.sparsify.round_epochs, max_images=case.recipe.round_images, schedule="constant"
    )
    for number, target in enumerate(targets, start=1):
        masks = masks_for(student, case.recipe.sparsify, target, earlier=masks)
        finetune = last if number == len(targets) else between
        history += case.trained(student, case.plan(finetune, (masks,)))
    return case.finished(student, history, rounds=len(targets), zero_share=_zero_share(student))


def _zero_share(model: nn.Module) -> float:
    """Share of the convolutions' weights that are zero."""
    weights = [module.weight for module in model.modules() if isinstance(module, nn.Conv2d)]
    weights = [weight for weight in weights if isinstance(weight, nn.Parameter)]
    return sum(int((weight == 0).sum()) for weight in weights) / sum(weight.numel() for weight in weights)


def _quantised(case: Case) -> Student:
    """Trained with the rounding of the engine in place, and compared as the engine that ships."""
    # Export and engine are loaded for this kind only.
    from paper.int8 import learn_rounding

    prepared = case.context.folder(int8_of(case.unit))
    with TemporaryDirectory() as folder:
        learned = learn_rounding(case.unit, prepared, case.setting, case.recipe, case.matching, Path(folder))
    return Student(learned.compared, learned.history, learned.facts)


KINDS: Mapping[str, Callable[[Case], Student]] = MappingProxyType(
    {
        "distil": _distilled,
        "qat": _quantised,
        "scrambled": _scrambled,
        "structured": _structured,
        "unstructured": _unstructured,
    }
)
