"""Doing one unit, and reading what one has found.

A unit's folder holds `unit.json` (settings, scores of the answers, time), `columns.npz` (a value a pair), `maps.npz`
and, of a teacher, its weights. It appears whole or not at all, so a run that was killed goes on with the next unit.
"""

from __future__ import annotations

import io
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from edgekit.core.canonical import read_json, write_json
from edgekit.core.files import atomic_directory, write_bytes
from paper.compared import torch_compared
from paper.context import Context
from paper.evaluation import Evaluation, evaluate
from paper.floors import measure_floors
from paper.students import make_student
from paper.teachers import WEIGHTS_NAME, load_teacher, train_teacher
from paper.units import Unit, following_teacher, identity, teacher_of

__all__ = ["Found", "do_unit", "read_maps", "read_unit"]

_FORMAT = "edgekit.benchmark.paper-unit/1"


@dataclass(frozen=True)
class Found:
    """A unit's result.

    Attributes:
        facts: Of `unit.json`.
        columns: Name to one value a pair.
    """

    facts: Mapping[str, Any]
    columns: Mapping[str, npt.NDArray[np.float64]]


def do_unit(unit: Unit, context: Context) -> float:
    """Do a unit whose dependencies are there, and return the seconds it took."""
    begun, processor = time.monotonic(), time.process_time()
    parts = {"teacher": _teacher, "floors": _floors, "int8": _int8, "student": _student}
    parts[unit.part](unit, context, begun, processor)
    return time.monotonic() - begun


def _teacher(unit: Unit, context: Context, begun: float, processor: float) -> None:
    setting = context.setting(unit)
    model, accuracy = train_teacher(unit, context)
    trained = time.process_time() - processor
    found = evaluate(torch_compared(model, setting.network.matched), setting.asked, None)
    stored = io.BytesIO()
    torch.save(model.cpu().state_dict(), stored)
    facts = {"training_accuracy": accuracy, "training_processor_seconds": trained}
    files = {WEIGHTS_NAME: stored.getvalue()}
    _write(unit, context, found, {**facts, **_times(begun, processor)}, files)


def _student(unit: Unit, context: Context, begun: float, processor: float) -> None:
    setting = context.setting(unit)
    teacher = load_teacher(teacher_of(unit), context)
    student = make_student(unit, context, teacher)
    trained = time.process_time() - processor
    found = evaluate(student.compared, setting.asked, _reference(unit, context))
    facts = {
        **student.facts,
        "history": [record.to_dict() for record in student.history],
        "training_processor_seconds": trained,
    }
    _write(unit, context, found, {**facts, **_times(begun, processor)}, {})


def _floors(unit: Unit, context: Context, begun: float, processor: float) -> None:
    setting = context.setting(unit)
    references = {name: read_maps(each, context) for name, each in _teachers(unit).items()}
    retrained = read_unit(following_teacher(unit), context).columns["predicted"]
    found = measure_floors(unit.seed, setting, references["own"], references["other"], context.settings.device)
    columns = {**found, "retrained/predicted": retrained}
    _write(unit, context, Evaluation({}, columns, {}), _times(begun, processor), {})


def _int8(unit: Unit, context: Context, begun: float, processor: float) -> None:
    from edgekit.qat.stage import CALIBRATED_FOLDER
    from paper.int8 import int8_compared, prepare_int8

    setting = context.setting(unit)
    teacher = load_teacher(teacher_of(unit), context).cpu()
    with TemporaryDirectory() as temporary:
        folder = Path(temporary)
        prepare_int8(teacher, setting, folder)
        found = evaluate(int8_compared(folder / CALIBRATED_FOLDER, teacher), setting.asked, _reference(unit, context))
        kept = [path for path in folder.rglob("*") if path.is_file()]
        files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in kept}
    _write(unit, context, found, _times(begun, processor), files)


def _reference(unit: Unit, context: Context) -> dict[str, npt.NDArray[np.float32]]:
    return read_maps(teacher_of(unit), context)


def _teachers(unit: Unit) -> dict[str, Unit]:
    return {"own": teacher_of(unit), "other": following_teacher(unit)}


def _times(begun: float, processor: float) -> dict[str, float]:
    return {"seconds": time.monotonic() - begun, "processor_seconds": time.process_time() - processor}


def _write(
    unit: Unit, context: Context, found: Evaluation, facts: Mapping[str, Any], files: Mapping[str, bytes]
) -> None:
    with atomic_directory(context.folder(unit)) as folder:
        for name, content in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            write_bytes(folder / name, content)
        for name, arrays in (("columns.npz", found.columns), ("maps.npz", found.maps)):
            stored = io.BytesIO()
            np.savez_compressed(stored, **arrays)
            write_bytes(folder / name, stored.getvalue())
        told = {"format": _FORMAT, "name": unit.name, **identity(unit, context.settings)}
        write_json(folder / "unit.json", {**told, "answers": found.answers, **facts})


def read_unit(unit: Unit, context: Context) -> Found:
    """A finished unit's result."""
    folder = context.folder(unit)
    return Found(read_json(folder / "unit.json"), _arrays(folder / "columns.npz"))


def read_maps(unit: Unit, context: Context) -> dict[str, npt.NDArray[np.float32]]:
    """A finished unit's maps, by method."""
    return _arrays(context.folder(unit) / "maps.npz")


def _arrays(path: Path) -> dict[str, npt.NDArray[Any]]:
    with np.load(path) as stored:
        return dict(stored)
