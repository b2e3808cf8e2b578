"""What is written down of every step, for curves: a CSV file or TensorBoard's event files, in the run's workplace.

Nothing in the CSV depends on the clock, and a run that goes on from a checkpoint cuts off what the killed one wrote
after it: the file of a run is always the same. Event files carry the time.
"""

from __future__ import annotations

import csv
import os
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import Any, Protocol

from edgekit.core.files import foreign_os_errors
from edgekit.errors import UnavailableError

__all__ = [
    "CSV_NAME",
    "EVENTS_NAME",
    "CsvLog",
    "LoggedStep",
    "NoLog",
    "StepLog",
    "TensorBoardLog",
    "log_reaches",
    "opened_log",
]

CSV_NAME = "steps.csv"
EVENTS_NAME = "events"


@dataclass(frozen=True)
class LoggedStep:
    """One step; the parts are those of `edgekit.compress.training.plan.EpochRecord`, over one batch.

    Attributes:
        step: From 1, over all epochs.
        epoch: From 1.
        rate: Learning rate.
        loss: What was minimised.
        supervised: Unweighted.
        distillation: Unweighted.
        matching: Times beta.
    """

    step: int
    epoch: int
    rate: float
    loss: float
    supervised: float
    distillation: float
    matching: float


class StepLog(Protocol):
    """Where steps are written down."""

    def wrote(self, step: LoggedStep) -> None:
        """Write one step down."""

    def mark(self) -> int:
        """Make everything so far safe, and tell what `opened_log` needs to go on from here."""

    def close(self) -> None:
        """No more steps come."""


class NoLog:
    """Writes nothing."""

    def wrote(self, step: LoggedStep) -> None:
        """Nothing."""

    def mark(self) -> int:
        """Nothing to go on from."""
        return 0

    def close(self) -> None:
        """Nothing."""


class CsvLog:
    """One line a step, floats in full; the mark is the file's length in bytes."""

    def __init__(self, path: Path, mark: int) -> None:
        self._path = path
        with foreign_os_errors(path, "write a log"):
            self._file = path.open("r+" if mark else "w", encoding="utf-8", newline="")
            self._file.truncate(mark)
            self._file.seek(mark)
        self._writer = csv.writer(self._file, lineterminator="\n")
        if not mark:
            self._writer.writerow([field.name for field in fields(LoggedStep)])

    def wrote(self, step: LoggedStep) -> None:
        """Write a line, at once, so that the file can be followed."""
        with foreign_os_errors(self._path, "write a log"):
            self._writer.writerow(astuple(step))
            self._file.flush()

    def mark(self) -> int:
        """The file's length, all of it on the disk."""
        with foreign_os_errors(self._path, "write a log"):
            self._file.flush()
            os.fsync(self._file.fileno())
            return self._file.tell()

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class TensorBoardLog:
    """Scalars called as the fields of `LoggedStep`; the mark is the number of steps."""

    def __init__(self, folder: Path, mark: int) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as cause:
            raise UnavailableError(
                "Logs for TensorBoard need the package tensorboard, which is not installed.",
                where="compress.finetune.log",
                hint="pip install tensorboard, or set it to csv",
            ) from cause
        # Readers drop what an earlier, killed run wrote from this step on.
        self._writer: Any = SummaryWriter(str(folder), purge_step=mark + 1)
        self._steps = mark

    def wrote(self, step: LoggedStep) -> None:
        """Write the step's scalars."""
        for field in fields(LoggedStep):
            if field.name != "step":
                self._writer.add_scalar(field.name, getattr(step, field.name), step.step)
        self._steps = step.step

    def mark(self) -> int:
        """The number of steps, all of them on the disk."""
        self._writer.flush()
        return self._steps

    def close(self) -> None:
        """Close the event file."""
        self._writer.close()


def opened_log(kind: str, workplace: Path | None, mark: int = 0) -> StepLog:
    """The log of a run.

    Args:
        kind: One of `edgekit.compress.options.LOGS`.
        workplace: The run's folder; None for no log.
        mark: Where an earlier part of the run ended; 0 for a log that begins.

    Raises:
        UnavailableError: TensorBoard's package is not installed, or the disk is full.
        BadInputError: The folder cannot be written to.
    """
    if workplace is None or kind == "none":
        return NoLog()
    with foreign_os_errors(workplace, "create a folder"):
        workplace.mkdir(parents=True, exist_ok=True)
    return CsvLog(workplace / CSV_NAME, mark) if kind == "csv" else TensorBoardLog(workplace / EVENTS_NAME, mark)


def log_reaches(kind: str, workplace: Path, mark: int) -> bool:
    """Whether the log of a run that goes on is still there up to its mark; event files are not looked into."""
    path = workplace / CSV_NAME
    return kind != "csv" or (path.is_file() and path.stat().st_size >= mark)
