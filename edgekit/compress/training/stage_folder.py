"""A stage that trains, alone or in several processes: who writes its folder, and what a kill leaves to go on from."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from edgekit.compress.training.distributed import joined
from edgekit.core.canonical import JsonValue
from edgekit.core.files import read_bytes, write_bytes
from edgekit.core.progress import Observer
from edgekit.core.stages import Stage, StageRecord, finished_record, run_stage, stage_key
from edgekit.core.workplace import kept_workplace, workplace_of

__all__ = ["LOGS_NAME", "keep_logs", "run_training_stage"]

LOGS_NAME = "logs"


def run_training_stage(
    stage: Stage,
    destination: Path,
    body: Callable[[Path, Path], Mapping[str, JsonValue]],
    observer: Observer,
) -> StageRecord:
    """`run_stage` for a body that trains.

    Among the processes that `torchrun` starts, all run the body, since all are needed in training; what the first one
    wrote is the stage's result, and what the others wrote goes with their temporary folders.

    Args:
        stage: Name, options and inputs.
        destination: The folder the stage fills.
        body: From the folder to fill, and the workplace that survives a kill, to the facts to record.
        observer: Told about progress.

    Raises:
        EdgekitError: As `run_stage` and the body.
    """
    key = stage_key(stage)

    def together(folder: Path, workplace: Path) -> Mapping[str, JsonValue]:
        # Joined once for all trainings: between two of them one process could meet the other's former group.
        with joined(torch.device("cpu")):
            return body(folder, workplace)

    if int(os.environ.get("RANK", "0")) == 0:
        with kept_workplace(destination, key) as workplace:
            return run_stage(stage, destination, lambda folder: together(folder, workplace), observer)
    finished = finished_record(destination, key)
    if finished is not None:
        # The first process finds it too, and will not wait for this one.
        return finished
    with TemporaryDirectory() as own:
        workplace = workplace_of(destination, key)
        return run_stage(stage, Path(own) / stage.name, lambda folder: together(folder, workplace), observer)


def keep_logs(workplace: Path, folder: Path) -> None:
    """Copy each training's tables. Logs of other kinds hold times of day, and the same work has the same outputs."""
    for table in sorted(workplace.glob("*/*.csv")):
        write_bytes(folder / f"{table.parent.name}.{table.name}", read_bytes(table))
