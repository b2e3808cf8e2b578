"""The qat stage: student, explained graph and scale table in; the same, learned with the rounding in place, out.

Its folder can stand for three others: `student.pt` for that of `compress`, `export/` for that of `export`, and
`calibrate/` for that of `calibrate`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import torch

from edgekit.calibrate import half_copy
from edgekit.calibrate.adjustments import NO_ADJUSTMENTS
from edgekit.calibrate.graph import ExplainedGraph, read_graph
from edgekit.calibrate.qdq import serialise, write_qdq
from edgekit.calibrate.scale_table import SCALES_NAME, ScaleTable, read_scales, write_scales
from edgekit.calibrate.stage import CALIBRATION_NAME, MODEL_NAME, check_rules
from edgekit.compress.options import CompressOptions, FinetuneOptions, QatOptions
from edgekit.compress.stage import HISTORY_NAME, STUDENT_NAME
from edgekit.compress.training.batches import TrainingImages, digest_images
from edgekit.compress.training.plan import EpochRecord, TrainPlan
from edgekit.compress.training.stage_folder import LOGS_NAME, keep_logs, run_training_stage
from edgekit.compress.training.trainer import train
from edgekit.core.canonical import JsonValue, read_json, write_json
from edgekit.core.digests import digest_bytes
from edgekit.core.files import write_bytes
from edgekit.core.progress import NULL_OBSERVER, NullObserver, Observer
from edgekit.core.stages import Stage, StageRecord
from edgekit.errors import BadInputError
from edgekit.export.options import ExportOptions
from edgekit.export.stage import GRAPH_NAME, ExportRequest, ParityImages, export
from edgekit.qat.constraints import HoldScales, KeepZeros
from edgekit.qat.interpreter import Interpreter, weight_names
from edgekit.qat.owners import Owner, find_owners, write_back
from edgekit.qat.quantiser import Quantiser
from edgekit.qat.taps import graph_taps, matched_modules
from edgekit.qat.transfer import check_weights, renamed_constants, transferred
from edgekit.teacher.checkpoint import LoadedModel, save_checkpoint
from edgekit.teacher.load_options import LoadOptions
from edgekit.teacher.loading import load_model

__all__ = ["CALIBRATED_FOLDER", "EXPORTED_FOLDER", "QatRequest", "qat"]

EXPORTED_FOLDER, CALIBRATED_FOLDER = "export", "calibrate"
# 4: the exported graph says what it was made of.
_VERSION = 4
_HISTORY_FORMAT = "edgekit.qat-history/1"


@dataclass(frozen=True)
class QatRequest:
    """What is trained and how.

    Attributes:
        teacher: The teacher's file.
        student: The student's checkpoint, as `compress` wrote it.
        exported: Folder that `export` filled from that student.
        calibrated: Folder that `calibrate` filled from that graph; its number format is the target's.
        data: Training images at the card's input size.
        images: Real images for the parity check of the graph that is exported again: those of `calibrated`.
        opset: ONNX operator set the target reads.
        options: Epochs and learning rates.
        compress: Loss, batches and augmentation are those of its `finetune`, `matching` and `distil`.
        export: How the graph is written; its `batch` must be 0.
        load: How to load the teacher.
        student_load: How to load the student.
        operators: Name of the table of what the target's engine can run, or None.
        seed: Decides everything that is drawn.
        threads: Torch threads; 0 keeps the process's setting.
    """

    teacher: Path
    student: Path
    exported: Path
    calibrated: Path
    data: TrainingImages
    images: ParityImages
    opset: int
    options: QatOptions
    compress: CompressOptions = field(default_factory=CompressOptions)
    export: ExportOptions = field(default_factory=ExportOptions)
    load: LoadOptions = field(default_factory=LoadOptions)
    student_load: LoadOptions = field(default_factory=LoadOptions)
    operators: str | None = None
    seed: int = 0
    threads: int = 0


@dataclass(frozen=True)
class _Learned:
    """What training ended with: the network, where its weights came from, and those that stayed as they were."""

    network: Interpreter
    quantiser: Quantiser
    owners: tuple[Owner, ...]
    frozen: tuple[str, ...]
    zeros: int
    history: tuple[EpochRecord, ...]


def qat(request: QatRequest, destination: Path, observer: Observer = NULL_OBSERVER) -> StageRecord:
    """Train the student with the rounding of its engine, and write what `compress`, `export` and `calibrate` wrote.

    Writes `student.pt`, `history.json`, the training's table in `logs`, `export/` with the explained FP32 graph of the
    new student, and `calibrate/` with the learned scale table and the Q/DQ graph. The rounded network that was trained
    computes what that Q/DQ graph computes. Killed while training, the same call goes on after the last epoch.

    Raises:
        BadInputError: No epoch is asked for, the teacher's or student's format allows no training, the graph has an
            operator that cannot be trained or a fixed batch, a tap is no tensor of it, or as `train` and `export`.
        IntegrityError: The scale table belongs to another graph.
        DefectError: The graph that was exported again is not the one that learned.
    """
    if request.options.epochs == 0:
        raise BadInputError("There is no epoch to train with quantisation.", expected="qat.epochs above 0", found="0")
    kept = request.compress
    stage = Stage(
        name="qat",
        version=_VERSION,
        options={
            "qat": asdict(request.options),
            "finetune": asdict(kept.finetune),
            "matching": asdict(kept.matching),
            "distil": asdict(kept.distil),
            "export": asdict(request.export),
            "load": request.load.to_dict(),
            "student_load": request.student_load.to_dict(),
            "opset": request.opset,
            "operators": request.operators,
            "seed": request.seed,
            "threads": request.threads,
            "torch": torch.__version__,
        },
        inputs={
            "teacher": request.teacher,
            "student": request.student,
            "graph": request.exported / GRAPH_NAME,
            "scales": request.calibrated / SCALES_NAME,
            "calibration": request.calibrated / CALIBRATION_NAME,
        },
        digests={
            "images": digest_images(request.data),
            "parity_images": digest_bytes("\n".join(request.images.digests).encode()),
        },
    )
    return run_training_stage(
        stage, destination, lambda folder, workplace: _trained(request, folder, workplace, observer), observer
    )


def _trained(request: QatRequest, folder: Path, workplace: Path, observer: Observer) -> Mapping[str, JsonValue]:
    teacher = load_model(request.teacher, request.load)
    student = load_model(request.student, request.student_load)
    student.capabilities.check_qat(request.options.epochs, format_name=student.format, where=str(request.student))
    graph = read_graph(request.exported / GRAPH_NAME)
    table = _starting_table(request.calibrated / SCALES_NAME)
    learned = _learn(request, (teacher, student), (graph, table), workplace, observer)
    for name in learned.frozen:
        observer.noted(f"qat: {name!r} stays as it is: it is no weight that a module of the network learns")
    stored = {name: learned.network.stored(name) for name in weight_names(graph)}
    write_back(learned.owners, stored, student.model)
    save_checkpoint(folder / STUDENT_NAME, student)
    epochs: list[JsonValue] = [record.to_dict() for record in learned.history]
    write_json(folder / HISTORY_NAME, {"format": _HISTORY_FORMAT, "epochs": epochs})
    keep_logs(workplace, folder / LOGS_NAME)
    exported = _exported_again(request, folder, teacher.digest, observer)
    table, typed = _written(request, folder, graph, learned, observer)
    facts = _facts(request, learned, table, typed)
    return facts | {"last_epoch": epochs[-1], "export": dict(exported.facts)}


def _starting_table(path: Path) -> ScaleTable:
    """The scales that training begins with. Rounding and corrected biases are not taken over: it learns its own."""
    table = read_scales(path)
    if table.adjustments.input_grid is not None or table.adjustments.factors:
        raise BadInputError(
            "The scale table was made for a graph that calibration had adjusted, and training changes its weights.",
            where=str(path),
            hint="calibrate with calibrate.adjust false",
        )
    return replace(table, adjustments=NO_ADJUSTMENTS)


def _learn(
    request: QatRequest,
    models: tuple[LoadedModel, LoadedModel],
    quantised: tuple[ExplainedGraph, ScaleTable],
    workplace: Path,
    observer: Observer,
) -> _Learned:
    """Train teacher's student, given as a graph and the scale table that it begins with."""
    (teacher, student), (graph, table) = models, quantised
    images = torch.rand(2, *teacher.card.input.shape, generator=torch.Generator().manual_seed(0))
    owners, _ = find_owners(graph, student.model, images)
    owned = {name for owner in owners for name in (owner.weight, owner.bias) if name is not None}
    wanted = weight_names(graph)
    matched = matched_modules(teacher, student, request.compress, images)
    taps = graph_taps(graph, matched.student)
    quantiser = Quantiser(graph, table, learned=request.options.scale_learning_rate > 0)
    network = Interpreter(graph, owned & wanted, quantiser, taps.tensors)
    if not network.trainable:
        raise BadInputError(
            "None of the graph's weights can be led back to a module of the student, so none can be trained.",
            where=str(request.student),
            expected="convolutions and linear layers that are modules with weights of their own",
        )
    scales = tuple(f"quantiser.{name}" for name in quantiser.undecayed)
    zeros = KeepZeros(network)
    plan = TrainPlan(
        card=teacher.card,
        taps=matched.teacher,
        student_taps=taps.taps,
        finetune=_schedule(request.compress.finetune, request.options),
        matching=request.compress.matching,
        distil=request.compress.distil,
        constraints=(zeros, HoldScales()),
        learning_rates=dict.fromkeys(scales, request.options.scale_learning_rate),
        undecayed=frozenset(scales),
        seed=request.seed,
        threads=request.threads,
        name="qat",
    )
    history = train(network, teacher.model, request.data, plan, observer, workplace=workplace / plan.name)
    return _Learned(network, quantiser, owners, tuple(sorted(wanted - owned)), zeros.zeros, history)


def _schedule(options: FinetuneOptions, qat_options: QatOptions) -> FinetuneOptions:
    """The recipe's training, in float32 throughout: half precision would round where the engine does not."""
    return replace(
        options,
        epochs=qat_options.epochs,
        learning_rate=qat_options.learning_rate,
        schedule="cosine",
        mixed_precision="off",
    )


class _NotesOnly(NullObserver):
    """Hands on what the user should read of a stage within a stage."""

    def __init__(self, observer: Observer) -> None:
        self._observer = observer

    def noted(self, message: str) -> None:
        """Hand it on."""
        self._observer.noted(message)


def _exported_again(request: QatRequest, folder: Path, teacher: str, observer: Observer) -> StageRecord:
    wanted = ExportRequest(
        model=folder / STUDENT_NAME,
        load=request.student_load,
        images=request.images,
        opset=request.opset,
        options=request.export,
        operators=request.operators,
        teacher=teacher,
    )
    return export(wanted, folder / EXPORTED_FOLDER, _NotesOnly(observer))


def _written(
    request: QatRequest, folder: Path, graph: ExplainedGraph, learned: _Learned, observer: Observer
) -> tuple[ScaleTable, dict[str, JsonValue]]:
    """Write the learned table and its Q/DQ graph, for the graph that was exported again; says what became of FP16."""
    exported = read_graph(folder / EXPORTED_FOLDER / GRAPH_NAME)
    renamed = renamed_constants(graph, exported)
    check_weights(learned.network.trainable, renamed, graph, exported)
    parameters: dict[str, JsonValue] = {"qat": asdict(request.options)}
    table = transferred(learned.quantiser.table(learned.network.stored), renamed, exported, parameters)
    model = write_qdq(exported, table)
    check_rules(model, learned.quantiser.number_format, table.provenance.exclude)
    calibrated = folder / CALIBRATED_FOLDER
    calibrated.mkdir()
    write_scales(calibrated / SCALES_NAME, table)
    write_bytes(calibrated / MODEL_NAME, serialise(model))
    some = next(iter(request.images.batches(half_copy.IMAGES)))
    fmt = learned.quantiser.number_format
    typed = half_copy.write_half_copy(calibrated / MODEL_NAME, fmt, some, observer)
    typed |= half_copy.write_float16(folder / EXPORTED_FOLDER / GRAPH_NAME, calibrated, fmt, some, observer)
    origin = table.provenance
    said: dict[str, JsonValue] = dict(read_json(request.calibrated / CALIBRATION_NAME))
    said["graph"] = origin.graph
    said["method"] = {"name": origin.method, "parameters": dict(origin.parameters)}
    write_json(calibrated / CALIBRATION_NAME, said)
    return table, typed


def _facts(
    request: QatRequest, learned: _Learned, table: ScaleTable, typed: dict[str, JsonValue]
) -> dict[str, JsonValue]:
    moved = [float(drift.detach().abs().max()) for drift in learned.quantiser.parameters() if drift.numel()]
    farthest = math.expm1(max(moved, default=0.0))
    first, last = learned.history[0], learned.history[-1]
    return {
        "number_format": table.number_format,
        "trained_tensors": len(learned.network.trainable),
        "frozen_tensors": list(learned.frozen),
        "held_zeros": learned.zeros,
        "largest_scale_change": farthest,
        "summary": (
            f"{last.epoch} epochs in {table.number_format} with {request.compress.matching.loss}, "
            f"loss {first.loss:.4f} to {last.loss:.4f}, scales moved by up to {farthest:.1e} of themselves"
            f"{half_copy.refused(typed)}"
        ),
        **typed,
    }
