"""Doing one unit, and reading what one has found.

A unit's folder holds `unit.json` (numbers, times, memory, or why it was not run), `columns.npz` (a value an image) and
the quantised model. It appears whole or not at all, so a run that was killed goes on with the next unit.
"""

from __future__ import annotations

import io
import statistics
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from calibration.answers import Answers, engine_answers, stored_answers
from calibration.child import Child, NotRunError
from calibration.context import Context
from calibration.methods import OUR_BASE, Method
from calibration.prepared import Prepared
from calibration.scores import numbers_of, score
from calibration.units import Unit, method_named
from edgekit.core.canonical import read_json, write_json
from edgekit.core.files import atomic_directory, write_bytes

__all__ = ["Bench", "read_columns", "read_unit"]

_FORMAT = "edgekit.benchmark.calibration-unit/1"
_ROOT = Path(__file__).resolve().parents[2]
# A method that takes longer is timed once: what differs between its first run and the next ones is no share of it.
_LONG_SECONDS = 10.0
_BUDGET_SECONDS = 20.0


@dataclass(frozen=True)
class _Base:
    """Our min-max, waiting for its turn on one network."""

    child: Child
    unit: Unit


class Bench:
    """Does units, one at a time: times of two at once would be each other's.

    Args:
        context: The run.
    """

    def __init__(self, context: Context) -> None:
        self._context = context
        self._stack = ExitStack()
        self._base: _Base | None = None

    def __enter__(self) -> Bench:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def do(self, unit: Unit) -> str:
        """Do a unit, and say in a few words what came out."""
        context = self._context
        with atomic_directory(context.folder(unit)) as folder:
            facts: dict[str, Any] = {"format": _FORMAT, "name": unit.name, **context.identity(unit)}
            try:
                found = self._measured(unit, folder)
            except NotRunError as cause:
                found = {"not_run": str(cause)}
            write_json(folder / "unit.json", {**facts, **found})
        if "not_run" in found:
            return f"not run: {found['not_run']}"
        return (
            ", ".join(f"{name} {found['numbers'][name]:.5f}" for name in ("cosine", "iou-top20", "agrees"))
            if "numbers" in found
            else f"{found['peak_bytes'] / 2**20:.0f} MiB"
        )

    def _measured(self, unit: Unit, folder: Path) -> dict[str, Any]:
        context, method = self._context, method_named(unit.method)
        prepared = context.prepared(unit.network)
        model = folder / f"model{method.suffix}"
        with self._child(unit, method, prepared, model) as child:
            told = child.ask("calibrate")
            found = {"peak_bytes": told["peak_bytes"], "facts": told.get("facts", {}), "tool": dict(child.told)}
            if unit.part == "memory":
                model.unlink()
                return found
            found |= self._timed(unit, child, told["seconds"])
            if method.answers:
                child.ask("answer")
        answers = self._answers(method, prepared, model)
        columns = score(prepared.reference, answers, prepared.labels)
        stored = io.BytesIO()
        np.savez_compressed(stored, **columns)
        write_bytes(folder / "columns.npz", stored.getvalue())
        return {**found, "numbers": numbers_of(columns), "bytes": model.stat().st_size}

    def _answers(self, method: Method, prepared: Prepared, model: Path) -> Answers:
        if method.answers:
            answers = model.with_name("answers.npz")
            found = stored_answers(answers)
            answers.unlink()
            return found
        try:
            return engine_answers(model, np.load(prepared.evaluation), np.load(prepared.classes_file))
        except Exception as cause:  # whatever another tool's graph does to the engine is a line of the table
            if method.ours:
                raise
            said = str(getattr(cause, "found", None) or cause).splitlines()[0]
            raise NotRunError(f"the engine refuses its graph: {said}") from cause

    def _timed(self, unit: Unit, child: Child, first: float) -> dict[str, Any]:
        """Seconds of a calibration, and how many of our min-max's they are, round by round in turns."""
        base = None if unit.method == OUR_BASE else self._base_of(unit)
        seconds: list[float] = []
        ratios: list[float] = []
        begun = time.monotonic()
        rounds = 1 if first > _LONG_SECONDS else self._context.profile.rounds
        for turn in range(rounds):
            before = base.ask("calibrate")["seconds"] if base is not None else None
            seconds.append(first if first > _LONG_SECONDS else child.ask("calibrate")["seconds"])
            ratios.append(1.0 if before is None else seconds[-1] / before)
            if turn and time.monotonic() - begun > _BUDGET_SECONDS:
                break
        return {"seconds": statistics.median(seconds), "ratio": statistics.median(ratios), "rounds_timed": len(seconds)}

    def _base_of(self, unit: Unit) -> Child:
        wanted = Unit("scores", unit.network, OUR_BASE, unit.number_format, unit.images)
        if self._base is None or self._base.unit != wanted:
            self._stack.close()
            folder = self._context.work / "base"
            folder.mkdir(parents=True, exist_ok=True)
            method = method_named(OUR_BASE)
            made = self._child(wanted, method, self._context.prepared(unit.network), folder / "model.onnx")
            child = self._stack.enter_context(made)
            # What is imported on first use is no part of anybody's calibration.
            child.ask("calibrate")
            self._base = _Base(child, wanted)
        return self._base.child

    def _child(self, unit: Unit, method: Method, prepared: Prepared, model: Path) -> Child:
        context = self._context
        options: dict[str, Any] = dict(method.options)
        if method.ours:
            options |= {"number_format": unit.number_format, "card": prepared.told["card"]}
            options["digests"] = prepared.told["calibration"]
        request = {
            "graph": str(prepared.graph),
            "images": str(prepared.calibration),
            "count": unit.images,
            "output": str(model),
            "options": options,
        }
        if method.answers:
            request |= {"evaluation": str(prepared.evaluation), "classes": str(prepared.classes_file)}
            request["answers"] = str(model.with_name("answers.npz"))
        imports = _ROOT if method.ours else None
        return Child(context.python_of(method.tool), method.worker, request, model.parent, imports)


def read_unit(unit: Unit, context: Context) -> dict[str, Any]:
    """A finished unit's `unit.json`."""
    return dict(read_json(context.folder(unit) / "unit.json"))


def read_columns(unit: Unit, context: Context) -> dict[str, npt.NDArray[np.float64]]:
    """A scored unit's values, one an image."""
    with np.load(context.folder(unit) / "columns.npz") as stored:
        return dict(stored)
