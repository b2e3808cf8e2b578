"""The course of a training run, epoch by epoch: what it has come to, when it ends, and how it survives a kill."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy.typing as npt
import torch

from edgekit.compress.training.batches import visiting_order
from edgekit.compress.training.checkpoint import Checkpoints
from edgekit.compress.training.distributed import Processes
from edgekit.compress.training.learner import Learner
from edgekit.compress.training.log import LoggedStep, StepLog, log_reaches, opened_log
from edgekit.compress.training.monitor import Monitor
from edgekit.compress.training.plan import EpochRecord, TrainPlan
from edgekit.compress.training.reproducible import generator_states, restore_generators
from edgekit.compress.training.schedule import learning_rate_at
from edgekit.compress.training.steps import Step, summed
from edgekit.compress.training.weights import copied, tensors_of
from edgekit.core.progress import Observer
from edgekit.errors import BadInputError

__all__ = ["Best", "Course"]

_STORED = {"best", "done", "generators", "learner", "mark", "records"}


@dataclass(frozen=True)
class Best:
    """The weights that would be deployed after the epoch that the monitor liked best."""

    epoch: int
    agreement: float
    tensors: Mapping[str, torch.Tensor]


@dataclass
class Course:
    """A run and what it has come to.

    Attributes:
        plan: What to do.
        learner: The student.
        indices: Of the images to train on.
        generator: Source of order, augmentation and the matching loss's draws.
        device: Where the student is.
        processes: Those that train together.
        matches: Whether maps are matched.
        monitor: Where training may end early.
        records: One an epoch done.
        done: Steps done.
        best: Where training may end early.
    """

    plan: TrainPlan
    learner: Learner
    indices: npt.NDArray[Any]
    generator: torch.Generator
    device: torch.device
    processes: Processes
    matches: bool
    monitor: Monitor | None = None
    records: list[EpochRecord] = field(default_factory=list)
    done: int = 0
    best: Best | None = None

    def run(
        self, workplace: Path | None, checkpoints: Checkpoints | None, observer: Observer
    ) -> tuple[EpochRecord, ...]:
        """All epochs that are left, from the checkpoint on if there is one; the student ends with its weights.

        Args:
            workplace: Folder of the log; None for no log.
            checkpoints: Saved after every epoch; None for none.
            observer: Told after every step.
        """
        mark = 0 if checkpoints is None or workplace is None else self._resumed(checkpoints, workplace, observer)
        # Before the first step of a run, so that what the log lacks is said before the work is done.
        log = opened_log(self.plan.finetune.log, workplace if self.processes.first else None, mark)
        try:
            while not self._over():
                self._epoch(log, observer)
                if checkpoints is not None:
                    self._save(checkpoints, log.mark())
        finally:
            log.close()
        self.learner.end(None if self.best is None else self.best.tensors)
        # Nobody goes on, perhaps to what reads this workplace, before the first process has written it.
        self.processes.told(0.0)
        return tuple(self.records)

    def _over(self) -> bool:
        options = self.plan.finetune
        waited = 0 if self.best is None else len(self.records) - self.best.epoch
        return len(self.records) >= options.epochs or 0 < options.patience <= waited

    def _epoch(self, log: StepLog, observer: Observer) -> None:
        """One pass over the images, and what comes of it."""
        options, number = self.plan.finetune, len(self.records) + 1
        batches = list(visiting_order(self.indices, options.batch_size, self.generator))
        total = len(batches) * options.epochs
        first_rate = learning_rate_at(options, self.done, total)
        steps: list[Step] = []
        for position, batch in enumerate(batches, start=1):
            rate = learning_rate_at(options, self.done, total)
            where = f"epoch {number} of {options.epochs}, step {position} of {len(batches)}"
            step = self.learner.step(batch, rate, self.generator, where)
            steps.append(step)
            self.done += 1
            log.wrote(self._logged(number, step, rate))
            observer.advanced(self.plan.name, self.done, total, self._described(number, step, rate))
        self.learner.check_weights(f"end of epoch {number} of {options.epochs}")
        record = summed(self.plan, number, first_rate, steps, matches=self.matches)
        if record.student_zero and record.student_zero + record.teacher_zero == record.images:
            observer.noted(
                f"epoch {number}: the student's map is zero on every image, so that matching cannot pull it back"
            )
        self.records.append(replace(record, agreement=self._judged(number)))

    def _judged(self, number: int) -> float | None:
        """The monitor's agreement; the weights are kept where it is higher than ever."""
        if self.monitor is None:
            return None
        with self.learner.deployed() as student:
            # The first process alone decides: another machine's last bits must not part them.
            agreement = self.processes.told(self.monitor.agreement(student) if self.processes.first else 0.0)
            if self.best is None or agreement > self.best.agreement:
                self.best = Best(number, agreement, copied(tensors_of(student)))
        return agreement

    def _save(self, checkpoints: Checkpoints, mark: int) -> None:
        states = generator_states(self.generator, self.device)
        gathered = {name: self.processes.gathered(state) for name, state in states.items()}
        if not self.processes.first:
            return
        best = self.best
        checkpoints.save(
            {
                "records": [record.to_dict() for record in self.records],
                "done": self.done,
                "mark": mark,
                "generators": gathered,
                "learner": self.learner.state(),
                "best": None
                if best is None
                else {"epoch": best.epoch, "agreement": best.agreement, "tensors": dict(best.tensors)},
            }
        )

    def _resumed(self, checkpoints: Checkpoints, workplace: Path, observer: Observer) -> int:
        """Go on where the checkpoint is, and tell where the log was then; 0 at the beginning."""
        content = checkpoints.load(observer)
        if content is not None and not (set(content) >= _STORED and self.learner.accepts(content["learner"])):
            observer.noted(f"the checkpoint in {workplace} is not whole; training begins anew")
            content = None
        if content is not None and not log_reaches(self.plan.finetune.log, workplace, content["mark"]):
            observer.noted(f"{workplace} has no log of the steps before its checkpoint; training begins anew")
            content = None
        self._check_same_epoch(0 if content is None else len(content["records"]), workplace)
        if content is None:
            return 0
        self.records = [EpochRecord(**record) for record in content["records"]]
        self.done = content["done"]
        self.best = None if content["best"] is None else Best(**content["best"])
        self.learner.restore(content["learner"])
        states = {name: ranks[self.processes.rank] for name, ranks in content["generators"].items()}
        restore_generators(states, self.generator, self.device)
        observer.noted(f"{self.plan.name} goes on after epoch {len(self.records)}")
        return int(content["mark"])

    def _check_same_epoch(self, epoch: int, workplace: Path) -> None:
        found = [int(each) for each in self.processes.gathered(torch.tensor([epoch]))]
        if len(set(found)) > 1:
            raise BadInputError(
                "The processes that train together do not find the same checkpoint.",
                where=str(workplace),
                expected="one folder that all of them see",
                found=f"epochs {', '.join(map(str, found))}",
            )

    def _logged(self, epoch: int, step: Step, rate: float) -> LoggedStep:
        return LoggedStep(
            step=self.done,
            epoch=epoch,
            rate=rate,
            loss=step.loss,
            supervised=step.supervised,
            distillation=step.distillation,
            matching=self.plan.matching.beta * step.term,
        )

    def _described(self, epoch: int, step: Step, rate: float) -> str:
        parts = [f"{(1 - self.plan.distil.weight) * step.supervised:.4f} supervised"]
        if self.plan.distil.weight > 0:
            parts.append(f"{self.plan.distil.weight * step.distillation:.4f} distillation")
        if self.matches:
            parts.append(f"{self.plan.matching.beta * step.term:.4f} matching")
        total = f" = {' + '.join(parts)}" if len(parts) > 1 else ""
        return f"epoch {epoch}/{self.plan.finetune.epochs}, loss {step.loss:.4f}{total}, rate {rate:.2g}"
