"""One piece of work of the tables: what it is, what it is called, and where its result lies."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from edgekit.core.canonical import dump_canonical
from edgekit.core.digests import digest_bytes
from paper.profiles import Profile

__all__ = [
    "LOSSES",
    "SEEDS",
    "Unit",
    "all_units",
    "folder_of",
    "following_teacher",
    "identity",
    "int8_of",
    "needed_by",
    "selected_units",
    "teacher_of",
]

LOSSES = ("none", "ewa", "swa", "sswa")
SEEDS = (0, 1, 2)
# Raised when what a unit measures changes: results of before are then made anew.
_VERSION = 1


@dataclass(frozen=True)
class Unit:
    """A teacher, its noise floors, its INT8 engine without training, or a student, each with its evaluation.

    Attributes:
        part: "teacher", "floors", "int8" or "student".
        dataset: Of `paper.datasets`.
        network: Of `paper.networks`.
        seed: Of everything that is drawn; a student's teacher has the same.
        kind: Of compression, of `paper.students`; students only.
        loss: Matching loss; students only.
        beta: Its weight, where it is not the profile's.
    """

    part: str
    dataset: str
    network: str
    seed: int
    kind: str = ""
    loss: str = ""
    beta: float | None = None

    @property
    def name(self) -> str:
        """For people, and for patterns."""
        parts = [self.part, self.dataset, self.network, self.kind, self.loss]
        beta = [] if self.beta is None else [f"beta{self.beta:g}"]
        return "-".join([part for part in parts if part] + beta + [f"seed{self.seed}"])


def teacher_of(unit: Unit) -> Unit:
    """The teacher that a unit compares with."""
    return Unit("teacher", unit.dataset, unit.network, unit.seed)


def following_teacher(unit: Unit) -> Unit:
    """The same teacher trained from the next seed."""
    return replace(teacher_of(unit), seed=SEEDS[(SEEDS.index(unit.seed) + 1) % len(SEEDS)])


def int8_of(unit: Unit) -> Unit:
    """The teacher's INT8 engine."""
    return replace(teacher_of(unit), part="int8")


def needed_by(unit: Unit) -> tuple[Unit, ...]:
    """The units whose results a unit reads."""
    if unit.part == "teacher":
        return ()
    if unit.part == "floors":
        return teacher_of(unit), following_teacher(unit)
    return (teacher_of(unit), int8_of(unit)) if unit.kind == "qat" else (teacher_of(unit),)


def all_units(profile: Profile) -> Iterator[Unit]:
    """Everything the tables need, teachers first."""
    combinations = [(dataset, network, seed) for dataset, network in profile.kinds for seed in SEEDS]
    for part in ("teacher", "floors"):
        yield from (Unit(part, *combination) for combination in combinations)
    yield from (Unit("int8", *each) for each in combinations if "qat" in profile.kinds[each[:2]])
    # Seed by seed and kind by kind, so that a run that was cut short has whole rows.
    for seed in SEEDS:
        for (dataset, network), kinds in profile.kinds.items():
            for kind, losses in kinds.items():
                yield from (Unit("student", dataset, network, seed, kind, loss) for loss in losses)


def selected_units(profile: Profile, patterns: tuple[str, ...], betas: tuple[float, ...]) -> tuple[Unit, ...]:
    """The units whose names match one of the patterns (all without any), with what they depend on.

    With `betas`, the selected students that match maps, once for each; the profile's own beta is not run again.
    """
    chosen = [unit for unit in all_units(profile) if not patterns or any(_matches(unit, each) for each in patterns)]
    if betas:
        students = [unit for unit in chosen if unit.part == "student"]
        matched = [unit for unit in students if unit.loss != "none"]
        others = [beta for beta in betas if beta != profile.beta]
        chosen = [*students, *(replace(unit, beta=beta) for beta in others for unit in matched)]
    needed = {each for unit in chosen for each in needed_by(unit)}
    before = [unit for unit in all_units(profile) if unit in needed]
    return tuple(dict.fromkeys([*before, *chosen]))


def _matches(unit: Unit, pattern: str) -> bool:
    return fnmatchcase(unit.name, f"*{pattern}*")


def identity(unit: Unit, profile: Profile) -> Mapping[str, Any]:
    """All that decides a unit's result, its teacher's settings included."""
    told: dict[str, Any] = {"version": _VERSION, "unit": asdict(unit), "evaluation": asdict(profile.evaluation)}
    told["teacher"] = asdict(profile.teacher(unit.dataset, unit.network))
    if unit.part == "student":
        told["recipe"] = asdict(profile.recipe(unit.dataset, unit.network, unit.kind))
        told["beta"] = unit.beta or profile.beta
    return told


def folder_of(unit: Unit, profile: Profile, work: Path) -> Path:
    """Where a unit's result lies; another one as soon as a setting is another."""
    return work / "units" / f"{unit.name}-{digest_bytes(dump_canonical(identity(unit, profile)))[:10]}"
