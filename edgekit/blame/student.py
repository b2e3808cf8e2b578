"""The student in torch, as a build left it: found, checked to be the bundle's, and asked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from edgekit.attribution.spec import OWN_CLASS
from edgekit.bundle.golden import GoldenSet
from edgekit.bundle.layout import LINEAGE
from edgekit.bundle.open import Bundle
from edgekit.core.progress import NULL_OBSERVER, Observer, track
from edgekit.core.stages import StageRecord, read_record
from edgekit.errors import BadInputError, IntegrityError, UnavailableError
from edgekit.interface.preprocess import preprocess
from edgekit.verify.answers import EngineAnswers

if TYPE_CHECKING:
    from edgekit.teacher.load_options import LoadOptions

__all__ = ["Student", "student_answers", "students_of"]

_BATCH = 32
_STUDENT = "student.pt"
# Stage that leaves a student to the name and title of its hop.
_STAGES = {
    "compress": ("compressed", "the compressed student"),
    "qat": ("trained", "the student trained with rounding"),
}


@dataclass(frozen=True)
class Student:
    """A student that a stage left, or that is known to be somewhere.

    Attributes:
        name: Of its hop.
        title: The same in words.
        path: Its file; None where it is not at hand.
        record: What the stage did; None where it is not at hand.
        reason: Why it is not at hand, or empty.
    """

    name: str
    title: str
    path: Path | None = None
    record: StageRecord | None = None
    reason: str = ""


def students_of(bundle: Bundle, build: Path | None) -> tuple[Student, ...]:
    """The students on the way to a bundle: of the compress stage, and of qat where that trained.

    Args:
        bundle: The opened bundle; its lineage names the stages it came from.
        build: The build's output folder; None for students that are named and not at hand.

    Raises:
        BadInputError: The folder holds no such stage, or another build's.
        IntegrityError: A file of the stage is not what its record names.
    """
    lineage = bundle.read_json(LINEAGE)
    stages = [name for name in _STAGES if isinstance(lineage, Mapping) and (name in lineage or name == "compress")]
    if build is None:
        return tuple(Student(*_STAGES[name], reason="give --build") for name in stages)
    found = []
    for stage in stages:
        folder = build / "stages" / stage
        record = read_record(folder)
        stored = lineage.get(stage, {})
        if not isinstance(stored, Mapping) or record.key != stored.get("key"):
            raise BadInputError(
                "The build folder is not the one that the bundle came from.",
                where=str(folder),
                expected=f"the {stage} stage with key {stored.get('key') if isinstance(stored, Mapping) else None}",
                found=record.key,
                hint="give the --output folder of the build that made this bundle, as it was then",
            )
        found.append(Student(*_STAGES[stage], path=folder / _STUDENT, record=record))
    return tuple(found)


def student_answers(
    student: Student, golden: GoldenSet, said: str | None = None, observer: Observer = NULL_OBSERVER
) -> tuple[EngineAnswers, str]:
    """Let a student answer and explain a golden set in torch.

    Args:
        student: One that is at hand.
        golden: Images, and which classes are explained.
        said: Architecture as the user named it, where that is code of the user's.
        observer: Told of the progress.

    Returns:
        Its answers, and what ran.

    Raises:
        UnavailableError: torch is not here.
        BadInputError: The student cannot be loaded, or explains nothing.
        IntegrityError: It does not answer in the shapes of the golden set.
    """
    try:
        import torch
    except ImportError as cause:
        raise UnavailableError("Asking the student needs torch.", hint="pip install 'edgekit[host]'") from cause
    from edgekit.teacher.explainer import explainer_for
    from edgekit.teacher.loading import load_model
    from edgekit.teacher.options import MapOptions

    assert student.path is not None
    assert student.record is not None
    spec = golden.map_spec
    try:
        loaded = load_model(student.path, _load_options(student.record, said))
    except BadInputError as cause:
        cause.hint = f"{cause.hint or ''}; a student made by code of yours is named with --student-arch".lstrip("; ")
        raise
    example = torch.from_numpy(preprocess(golden.pixels[[0, min(1, len(golden) - 1)]], golden.card.input))
    explainer = explainer_for(loaded, MapOptions(spec.method, spec.classes, spec.class_choice), example)
    parts = []
    for start in track(range(0, len(golden), _BATCH), f"{student.title}'s maps", observer):
        images = torch.from_numpy(preprocess(golden.pixels[start : start + _BATCH], golden.card.input))
        asked = torch.from_numpy(golden.explained_classes[start : start + _BATCH])
        theirs, own = (
            explainer(loaded.model, images, classes) for classes in (asked, torch.full_like(asked, OWN_CLASS))
        )
        parts.append((own.logits.numpy(), _views(theirs.maps), _views(own.maps)))
    logits = np.concatenate([part[0] for part in parts])
    maps, own_maps = (
        tuple(np.concatenate(view) for view in zip(*(part[at] for part in parts), strict=True)) for at in (1, 2)
    )
    _check_shapes(golden, logits, maps, student)
    return EngineAnswers(logits, maps[0], own_maps[0], maps[1:], own_maps[1:]), f"torch {torch.__version__}"


def _load_options(record: StageRecord, said: str | None) -> LoadOptions:
    """How the stage's student is loaded.

    A checkpoint of ours tells everything but code; a teacher's file that was passed on needs what was said of it. What
    a record says is data: it never decides which code runs.
    """
    from edgekit.compress.distillation.trust import is_foreign_code
    from edgekit.teacher.load_options import LoadOptions

    ref = record.outputs.get(_STUDENT)
    if ref is None or ref.sha256 != record.inputs.get("model"):
        return LoadOptions(arch=said)
    load: dict[str, Any] = dict(record.options.get("load") or {})
    arch = load.get("arch")
    trusted = None if arch is None or is_foreign_code(str(arch)) else str(arch)
    return LoadOptions(said or trusted, load.get("arguments"), dict(load.get("card") or {}))


def _views(maps: tuple[Any, ...]) -> tuple[npt.NDArray[np.float32], ...]:
    return tuple(tap[:, column].numpy() for tap in maps for column in range(tap.shape[1]))


def _check_shapes(
    golden: GoldenSet,
    logits: npt.NDArray[np.float32],
    maps: tuple[npt.NDArray[np.float32], ...],
    student: Student,
) -> None:
    wanted = [golden.logits.shape, golden.maps.shape, *(item.maps.shape for item in golden.further)]
    found = [logits.shape, *(item.shape for item in maps)]
    if found != wanted:
        raise IntegrityError(
            "The student does not answer in the shapes of the golden set.",
            where=str(student.path),
            expected=str(wanted),
            found=str(found),
        )
