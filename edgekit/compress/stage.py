"""The compress stage: teacher's file and training images in, student's file and its training history out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from edgekit.compress.distillation.trust import is_foreign_code, with_named_student
from edgekit.compress.options import CompressOptions
from edgekit.compress.outline import reason_to_skip
from edgekit.compress.preparation import Prepared, prepare
from edgekit.compress.steps import Compressed, Training, compressed
from edgekit.compress.training.batches import TrainingImages, digest_images
from edgekit.compress.training.stage_folder import LOGS_NAME, keep_logs, run_training_stage
from edgekit.core.canonical import JsonValue, write_json
from edgekit.core.files import read_bytes, write_bytes
from edgekit.core.progress import NULL_OBSERVER, Observer
from edgekit.core.stages import Stage, StageRecord
from edgekit.teacher.checkpoint import LoadedModel, save_checkpoint
from edgekit.teacher.load_options import LoadOptions
from edgekit.teacher.loading import load_model

__all__ = ["HISTORY_FORMAT", "HISTORY_NAME", "STUDENT_NAME", "CompressRequest", "compress", "student_load"]

STUDENT_NAME = "student.pt"
HISTORY_NAME = "history.json"
HISTORY_FORMAT = "edgekit.compress-history/2"
_VERSION = 2


@dataclass(frozen=True)
class CompressRequest:
    """What to compress and how.

    Attributes:
        model: The teacher's file.
        load: How to load it.
        data: Training images at the card's input size; None leaves the teacher as it is.
        options: Student, pruning, sparsity, fine-tuning, distillation and matching.
        student_code: The student's architecture as the user named it; an options' "package.module:factory" is only
            followed when it is the very same. None where nothing was said.
        compares_taps: Whether maps at the card's taps will be compared when the student is verified; not so with an
            attribution method that explains the input itself.
        seed: Decides everything that is drawn.
        threads: Torch threads; 0 keeps the process's setting.
    """

    model: Path
    load: LoadOptions = field(default_factory=LoadOptions)
    data: TrainingImages | None = None
    options: CompressOptions = field(default_factory=CompressOptions)
    student_code: str | None = None
    compares_taps: bool = True
    seed: int = 0
    threads: int = 0


def compress(request: CompressRequest, destination: Path, observer: Observer = NULL_OBSERVER) -> StageRecord:
    """Make a student, prune it, make it sparse and train it, with its map held to the teacher's.

    Writes `student.pt`, an edgekit checkpoint whose surgery is relative to its architecture; `history.json`, the
    trainings in order, each with a record an epoch; and into `logs` the tables they wrote. While it runs,
    `<destination>.work` holds what a run that was killed goes on from. Without training data, or with nothing asked
    for, the student is the teacher: the record's facts say "skipped" and why. Where the teacher has no architecture
    that a checkpoint could name, `student.pt` is then the teacher's file, byte for byte; `student_load` says how to
    load either.

    Raises:
        BadInputError: As `load_model`, `with_named_student`, `prepare` and `compressed` do.
    """
    options = with_named_student(request.options, request.student_code)
    stage = Stage(
        name="compress",
        version=_VERSION,
        options={
            "compress": asdict(options),
            "compares_taps": request.compares_taps,
            "load": request.load.to_dict(),
            "seed": request.seed,
            "threads": request.threads,
        },
        inputs={"model": request.model},
        digests={} if request.data is None else {"images": digest_images(request.data)},
    )
    return run_training_stage(
        stage, destination, lambda folder, workplace: _compress(request, options, folder, workplace, observer), observer
    )


def student_load(teacher: LoadedModel, load: LoadOptions, student: str = "") -> LoadOptions:
    """How to load the student that `compress` made.

    Args:
        teacher: What it was made of.
        load: How that was loaded.
        student: Architecture of a student that has another, as the user named or the recipe has it; empty where it
            has the teacher's, as every skipped stage's has.
    """
    if student:
        return LoadOptions(arch=student if is_foreign_code(student) else None)
    if not teacher.storable:
        return load
    return LoadOptions(arch=teacher.arch if ":" in teacher.arch else None)


def _compress(
    request: CompressRequest, options: CompressOptions, folder: Path, workplace: Path, observer: Observer
) -> Mapping[str, JsonValue]:
    teacher = load_model(request.model, request.load)
    skipped = reason_to_skip(options, has_images=request.data is not None)
    if skipped is not None or request.data is None:
        _write_teacher(teacher, request.model, folder)
        write_json(folder / HISTORY_NAME, {"format": HISTORY_FORMAT, "runs": []})
        return {"skipped": skipped, "summary": f"skipped: {skipped}"}
    prepared = prepare(
        teacher, options, seed=request.seed, where=str(request.model), compares_taps=request.compares_taps
    )
    for note in prepared.student.notes if prepared.untrained else ():
        observer.noted(note)
    training = Training(
        teacher=teacher.model,
        card=teacher.card,
        images=request.data,
        options=options,
        taps=prepared.taps,
        seed=request.seed,
        threads=request.threads,
        observer=observer,
        workplace=workplace,
    )
    result = compressed(prepared, teacher, training)
    save_checkpoint(folder / STUDENT_NAME, result.student)
    write_json(folder / HISTORY_NAME, {"format": HISTORY_FORMAT, "runs": [run.to_dict() for run in result.runs]})
    keep_logs(workplace, folder / LOGS_NAME)
    return _facts(result, prepared, options)


def _write_teacher(teacher: LoadedModel, model: Path, folder: Path) -> None:
    if teacher.storable:
        save_checkpoint(folder / STUDENT_NAME, teacher)
    else:
        write_bytes(folder / STUDENT_NAME, read_bytes(model))


def _facts(result: Compressed, prepared: Prepared, options: CompressOptions) -> dict[str, JsonValue]:
    student = result.student
    facts: dict[str, JsonValue] = {
        "before": dict(result.before.to_dict()),
        "after": dict(result.after.to_dict()),
        "runs": [{"name": run.name, "epochs": len(run.epochs)} for run in result.runs],
        "summary": _summary(result, options),
    }
    if prepared.untrained:
        taps = [tap.name for tap in prepared.taps.student]
        facts["student"] = {"arch": student.arch, "arguments": dict(student.arguments), "taps": taps}
    if result.pruned is not None:
        facts |= {key: value for key, value in result.pruned.to_dict().items() if key in ("channels", "untouched")}
    if result.masks is not None:
        facts["sparsity"] = {"pattern": options.sparsify.pattern, **result.masks.to_dict()}
    if result.runs:
        facts["last_epoch"] = result.runs[-1].epochs[-1].to_dict()
    return facts


def _summary(result: Compressed, options: CompressOptions) -> str:
    def share(before: int, after: int) -> str:
        return f"{before} -> {after} ({after / before - 1:+.0%})"

    parts = [
        f"parameters {share(result.before.parameters, result.after.parameters)}",
        f"MACs {share(result.before.macs, result.after.macs)}",
    ]
    if result.masks is not None:
        parts.append(f"{result.masks.sparsity():.1%} of the weights in {len(result.masks.kept)} layers are zero")
    if result.runs:
        epochs = sum(len(run.epochs) for run in result.runs)
        trainings = f" in {len(result.runs)} trainings" if len(result.runs) > 1 else ""
        parts.append(
            f"{epochs} epochs{trainings} with {options.matching.loss}, last loss {result.runs[-1].epochs[-1].loss:.4f}"
        )
    return ", ".join(parts)
