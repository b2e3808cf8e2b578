"""The compress stage: teacher's file and training images in, student's file and its training history out."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import torch

from edgekit.compress.options import CompressOptions
from edgekit.compress.pruning.structured import PruneReport, prune
from edgekit.compress.training.batches import TrainingImages, digest_images
from edgekit.compress.training.plan import EpochRecord, TrainPlan
from edgekit.compress.training.trainer import train
from edgekit.core.canonical import JsonValue, write_json
from edgekit.core.files import read_bytes, write_bytes
from edgekit.core.progress import NULL_OBSERVER, Observer
from edgekit.core.stages import Stage, StageRecord, run_stage
from edgekit.teacher.checkpoint import LoadedModel, save_checkpoint
from edgekit.teacher.discovery import resolve_tap
from edgekit.teacher.load_options import LoadOptions
from edgekit.teacher.loading import load_model
from edgekit.teacher.surgery import Surgery

__all__ = ["HISTORY_NAME", "STUDENT_NAME", "CompressRequest", "compress", "student_load"]

STUDENT_NAME = "student.pt"
HISTORY_NAME = "history.json"
_VERSION = 1
_HISTORY_FORMAT = "edgekit.compress-history/1"


@dataclass(frozen=True)
class CompressRequest:
    """What to compress and how.

    Attributes:
        model: The teacher's file.
        load: How to load it.
        data: Training images at the card's input size; None leaves the teacher as it is.
        options: Pruning, fine-tuning and matching.
        seed: Decides everything that is drawn.
        threads: Torch threads; 0 keeps the process's setting.
    """

    model: Path
    load: LoadOptions = field(default_factory=LoadOptions)
    data: TrainingImages | None = None
    options: CompressOptions = field(default_factory=CompressOptions)
    seed: int = 0
    threads: int = 0


def compress(request: CompressRequest, destination: Path, observer: Observer = NULL_OBSERVER) -> StageRecord:
    """Prune the teacher and fine-tune what is left, with its map held to the teacher's.

    Writes `student.pt`, an edgekit checkpoint whose surgery is relative to its architecture, and `history.json`, one
    record an epoch. Without training data, or with nothing asked for, the student is the teacher: the record's facts
    say "skipped" and why. Where the teacher has no architecture that a checkpoint could name, `student.pt` is then
    the teacher's file, byte for byte; `student_load` says how to load either.

    Raises:
        BadInputError: As `load_model`, `prune` and `train` do; or the teacher's format allows no compression.
    """
    stage = Stage(
        name="compress",
        version=_VERSION,
        options={
            "compress": asdict(request.options),
            "load": request.load.to_dict(),
            "seed": request.seed,
            "threads": request.threads,
        },
        inputs={"model": request.model},
        digests={} if request.data is None else {"images": digest_images(request.data)},
    )
    return run_stage(stage, destination, lambda folder: _compressed(request, folder, observer), observer)


def _compressed(request: CompressRequest, folder: Path, observer: Observer) -> Mapping[str, JsonValue]:
    teacher = load_model(request.model, request.load)
    skipped = _skipped(request)
    if skipped is None:
        options = request.options
        teacher.capabilities.check_compress(
            options.prune.rate, options.finetune.epochs, format_name=teacher.format, where=str(request.model)
        )
    # An own copy, as if pruned of nothing: what is trained must not be what it is measured against.
    student = replace(teacher, model=copy.deepcopy(teacher.model))
    history: tuple[EpochRecord, ...] = ()
    facts: dict[str, JsonValue]
    if skipped is None and request.data is not None:
        pruned = prune(teacher.model, request.options.prune, teacher.card.input.shape)
        surgery = _recorded(pruned.surgery, teacher.surgery)
        student = replace(teacher, model=pruned.model, surgery=surgery)
        history = _finetuned(student, teacher, request, observer)
        facts = {**pruned.report.to_dict(), "summary": _summary(pruned.report, request.options, history)}
    else:
        facts = {"skipped": skipped, "summary": f"skipped: {skipped}"}
    if teacher.storable:
        save_checkpoint(folder / STUDENT_NAME, student)
    else:
        write_bytes(folder / STUDENT_NAME, read_bytes(request.model))
    epochs: list[JsonValue] = [record.to_dict() for record in history]
    write_json(folder / HISTORY_NAME, {"format": _HISTORY_FORMAT, "epochs": epochs})
    if epochs:
        facts["last_epoch"] = epochs[-1]
    return facts


def student_load(teacher: LoadedModel, load: LoadOptions) -> LoadOptions:
    """How to load the student that `compress` made of a teacher that was loaded with `load`."""
    if not teacher.storable:
        return load
    return LoadOptions(arch=teacher.arch if ":" in teacher.arch else None)


def _skipped(request: CompressRequest) -> str | None:
    if request.data is None:
        return "no training data"
    if request.options.prune.rate == 0 and request.options.finetune.epochs == 0:
        return "nothing to prune and no epoch to train"
    return None


def _recorded(latest: Surgery, earlier: Surgery | None) -> Surgery | None:
    """The surgery since the architecture: a teacher that was itself pruned brings its own."""
    if earlier is not None:
        return latest.after(earlier)
    return latest if latest.layers else None


def _finetuned(
    student: LoadedModel, teacher: LoadedModel, request: CompressRequest, observer: Observer
) -> tuple[EpochRecord, ...]:
    if request.data is None or request.options.finetune.epochs == 0:
        return ()
    probe = torch.rand(2, *teacher.card.input.shape, generator=torch.Generator().manual_seed(0))
    plan = TrainPlan(
        card=teacher.card,
        taps=(resolve_tap(teacher.model, teacher.card.tap, probe),),
        finetune=request.options.finetune,
        matching=request.options.matching,
        seed=request.seed,
        threads=request.threads,
    )
    return train(student.model, teacher.model, request.data, plan, observer)


def _summary(report: PruneReport, options: CompressOptions, history: tuple[EpochRecord, ...]) -> str:
    def share(before: int, after: int) -> str:
        return f"{before} -> {after} (-{1 - after / before:.0%})"

    parts = [
        f"parameters {share(report.before.parameters, report.after.parameters)}",
        f"MACs {share(report.before.macs, report.after.macs)}",
    ]
    if history:
        last = history[-1]
        parts.append(f"{last.epoch} epochs with {options.matching.loss}, last loss {last.loss:.4f}")
    return ", ".join(parts)
