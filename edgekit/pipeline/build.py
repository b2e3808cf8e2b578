"""The main job: from a trained classifier and images to a gated bundle.

    golden -> compress -> export -> calibrate (-> qat) -> build -> verify -> bundle

Each stage is skipped when its inputs and options are unchanged, so the same command after a kill, or after a change
of policy, does only what is missing. Everything that can be refused is refused before the first long stage.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeAlias

from edgekit.calibrate.manifest import CalibrationManifest
from edgekit.compress.distillation.trust import with_named_student
from edgekit.compress.options import CompressOptions
from edgekit.compress.outline import check_format, outline, reason_to_skip
from edgekit.config.documents import read_policy
from edgekit.config.recipe import Recipe, compares_taps, recipe_to_dict
from edgekit.core.files import check_writable_directory
from edgekit.core.progress import NULL_OBSERVER, Observer
from edgekit.core.stages import StageRecord
from edgekit.engines.protocol import EngineOptions
from edgekit.errors import BadInputError
from edgekit.images.views import ImageView
from edgekit.pipeline.data import BuildData, DataRequest, final_calibration, load_data
from edgekit.pipeline.device_candidate import CandidateRequest, CandidateResult, make_candidate
from edgekit.pipeline.engines import EngineChoice, EnginesRequest, engines_for, run_engines
from edgekit.pipeline.folders import BuildFolders
from edgekit.pipeline.release import BuildResult, make_release
from edgekit.pipeline.release_request import ReleaseRequest
from edgekit.pipeline.tensorrt_demands import check_tensorrt
from edgekit.policy.context import Baseline
from edgekit.policy.policy import Policy
from edgekit.targets.loader import Target, check_target_runs_here, resolve_target
from edgekit.targets.site import device_engine
from edgekit.teacher.checkpoint import LoadedModel
from edgekit.teacher.load_options import LoadOptions
from edgekit.teacher.loading import load_model
from edgekit.teacher.pretrained import model_file
from edgekit.verify.gate import read_baseline

__all__ = ["BuildRequest", "Plan", "build", "plan"]


@dataclass(frozen=True)
class BuildRequest:
    """What is built for what.

    Attributes:
        model: The teacher's file or folder; or "timm:NAME" or "torchvision:NAME" for a library's pretrained weights,
            which are stored once, as a checkpoint in `output`.
        data: Labelled images.
        output: Folder for stages and bundle.
        recipe: How to build.
        target: Target name.
        load: How to load the model.
        calib: Calibration images, or the file of a calibration set; None draws them from `data`.
        calib_root: Folder with the images of that set; None for `data`.
        student_code: The student's architecture as the user named it; see `CompressRequest`.
        seed: Of every random choice.
        engine: How engines run.
        engine_name: The engine that ships, one of the target's; None for the fastest of those here that holds.
        baseline: Bundle of the release before, for policies that ask for a result that is no worse.
    """

    model: Path
    data: Path
    output: Path
    recipe: Recipe = field(default_factory=Recipe)
    target: str = "cpu"
    load: LoadOptions = field(default_factory=LoadOptions)
    calib: Path | None = None
    calib_root: Path | None = None
    student_code: str | None = None
    seed: int = 0
    engine: EngineOptions = field(default_factory=EngineOptions)
    engine_name: str | None = None
    baseline: Path | None = None


@dataclass(frozen=True)
class Plan:
    """A build that was checked as far as it can be without running a stage.

    `for_device` says that only the device can build the engine, and that a candidate for it is made; `baseline` is
    what the release is compared with.
    """

    request: BuildRequest
    target: Target
    engines: EngineChoice
    policy: Policy
    teacher: LoadedModel
    data: BuildData
    for_device: bool = False
    baseline: Baseline | None = None

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form, for --dry-run."""
        sizes = {
            "train": len(self.data.train) if self.data.train else 0,
            "calibration": len(self.data.calibration),
            "golden": len(self.data.golden),
        }
        return {
            "target": self.target.to_dict(),
            "engines": list(self.engines.engines),
            "engines_absent": [dict(vars(item)) for item in self.engines.absent],
            "policy": self.policy.to_dict(),
            "recipe": recipe_to_dict(self.request.recipe),
            "card": self.teacher.card.to_dict(),
            "format": self.teacher.format,
            "compress": outline(self.request.recipe.compress, has_images=self.data.train is not None),
            "images": sizes,
            "stages": list(_stages(self.request.recipe, for_device=self.for_device)),
            "for_device": self.for_device,
            "seed": self.request.seed,
        }


def _stages(recipe: Recipe, *, for_device: bool) -> tuple[str, ...]:
    trained = ("qat",) if recipe.qat.epochs > 0 else ()
    engines = ("rehearsal",) if for_device else ("build", "verify")
    return ("golden", "compress", "export", "calibrate", *trained, *engines, "bundle")


def plan(request: BuildRequest, observer: Observer = NULL_OBSERVER) -> Plan:
    """Check everything that a build needs before it begins.

    Raises:
        BadInputError: Model, card, recipe, policy, engine, images or output folder cannot be used; the recipe
            compresses a model whose format allows none; or its student cannot be made, matched or verified, or is made
            by code that the user did not name.
        UnavailableError: The target cannot be verified here or has not what the recipe asks of TensorRT, no engine of
            it runs here, or a package or pretrained weights cannot be had.
    """
    request = replace(request, recipe=_with_student(request.recipe, request.student_code))
    target = resolve_target(request.target)
    left_to = device_engine(target)
    if left_to is None:
        check_target_runs_here(target)
    # An engine that is named and is not the device's own is refused as it is elsewhere.
    left = left_to is not None and request.engine_name in (None, left_to)
    engines = EngineChoice((str(left_to),)) if left else engines_for(target, request.engine_name)
    check_tensorrt(request.recipe, target)
    policy = read_policy(request.recipe.policy)
    baseline = None if request.baseline is None else read_baseline(request.baseline)
    check_writable_directory(request.output)
    request = replace(request, model=model_file(request.model, request.load, request.output))
    teacher = load_model(request.model, request.load)
    for note in teacher.notes:
        observer.noted(note)
    compressing = request.recipe.compress
    check_format(compressing, teacher.capabilities, format_name=teacher.format, where=str(request.model))
    wanted = DataRequest.from_recipe(
        request.recipe, request.data, request.calib, request.seed, calib_root=request.calib_root
    )
    data = load_data(wanted, teacher.card, observer)
    if reason_to_skip(compressing, has_images=data.train is not None) is None:
        from edgekit.compress.preparation import prepare

        # Made for the sake of what it refuses; the stage makes it again.
        prepare(
            teacher,
            compressing,
            seed=request.seed,
            where=str(request.model),
            compares_taps=compares_taps(request.recipe),
        )
    _check_qat(request, teacher, data)
    return Plan(request, target, engines, policy, teacher, data, for_device=left, baseline=baseline)


def _check_qat(request: BuildRequest, teacher: LoadedModel, data: BuildData) -> None:
    """Refuse what the qat stage would refuse after minutes of work."""
    recipe = request.recipe
    if recipe.qat.epochs == 0:
        return
    if not recipe.compress.distil.student:
        # A student of another architecture is a network, whatever its teacher is.
        teacher.capabilities.check_qat(recipe.qat.epochs, format_name=teacher.format, where=str(request.model))
    if data.train is None:
        raise BadInputError(
            "There are no images to train on: the data holds held-out images only.",
            where=str(request.data),
            expected="training images, or a recipe with qat.epochs 0",
            found=f"qat.epochs {recipe.qat.epochs}",
        )
    if recipe.calibrate.adjusts_graph:
        raise BadInputError(
            "Training with quantisation changes the weights that calibration would have adjusted.",
            expected="calibrate.adjust false, or qat.epochs 0",
            found=f"calibrate.method {recipe.calibrate.method} and qat.epochs {recipe.qat.epochs}",
        )
    if recipe.calibrate.concat != "own":
        raise BadInputError(
            "Training with quantisation learns each scale of its own.",
            expected="calibrate.concat own, or qat.epochs 0",
            found=f"calibrate.concat {recipe.calibrate.concat} and qat.epochs {recipe.qat.epochs}",
        )
    if recipe.export.batch != 0:
        raise BadInputError(
            "A graph that takes batches of one size alone cannot be trained with quantisation.",
            expected="export.batch 0, or qat.epochs 0",
            found=f"export.batch {recipe.export.batch} and qat.epochs {recipe.qat.epochs}",
        )


def build(request: BuildRequest, observer: Observer = NULL_OBSERVER) -> BuildResult | CandidateResult:
    """Build, verify and bundle. That the maps did not hold is a result, with status "blocked", and no exception.

    Returns:
        The release or what was kept of it; where only the device can build the engine, the candidate for it.

    Raises:
        EdgekitError: As `plan` and the stages.
    """
    checked = plan(request, observer)
    folders = BuildFolders(request.output, trained_quantised=request.recipe.qat.epochs > 0)
    records = _student(checked, folders, observer)
    calibration = _calibration_images(checked, folders, observer)
    records["calibrate"] = _calibrated(checked, folders, calibration, observer)
    if request.recipe.qat.epochs > 0:
        records["qat"] = _trained_quantised(checked, folders, records["compress"], calibration[0], observer)
    if checked.for_device:
        return _candidate(checked, folders, records, observer)
    wanted = EnginesRequest(
        folders=folders,
        target=checked.target,
        choice=checked.engines,
        policy=checked.policy,
        latency_runs=request.recipe.select.latency_runs,
        options=request.engine,
        controls=request.recipe.verify.controls,
        tensorrt=request.recipe.tensorrt,
    )
    ran = run_engines(wanted, observer)
    records |= ran.records
    return make_release(
        ReleaseRequest(
            folders=folders,
            target=checked.target.name,
            engines=ran,
            recipe=request.recipe,
            policy=checked.policy,
            records=records,
            baseline=checked.baseline,
        ),
        observer,
    )


def _candidate(
    checked: Plan, folders: BuildFolders, records: dict[str, StageRecord], observer: Observer
) -> CandidateResult:
    request = checked.request
    wanted = CandidateRequest(
        folders=folders,
        target=checked.target,
        engine=checked.engines.engines[0],
        recipe=request.recipe,
        policy=checked.policy,
        options=request.engine,
        records=records,
        baseline=checked.baseline,
    )
    return make_candidate(wanted, observer)


def _student(checked: Plan, folders: BuildFolders, observer: Observer) -> dict[str, StageRecord]:
    """Stages that need torch: golden set, student, explained graph."""
    from edgekit.compress.stage import STUDENT_NAME, CompressRequest, compress, student_load
    from edgekit.export.stage import ExportRequest, export
    from edgekit.teacher.golden import GoldenRequest, golden

    request, recipe, data = checked.request, checked.request.recipe, checked.data
    card = checked.teacher.card
    golden_record = golden(
        GoldenRequest(request.model, request.load, data.golden, recipe.export.maps), folders.golden, observer
    )
    compress_record = compress(
        CompressRequest(
            model=request.model,
            load=request.load,
            data=data.train.for_training(card.input, observer) if data.train else None,
            options=_for_target(recipe.compress, checked.target),
            student_code=request.student_code,
            compares_taps=compares_taps(recipe),
            seed=request.seed,
        ),
        folders.compress,
        observer,
    )
    export_record = export(
        ExportRequest(
            model=folders.compress / STUDENT_NAME,
            load=student_load(checked.teacher, request.load, _student_arch(recipe, compress_record)),
            images=data.calibration.prepared(card.input),
            opset=checked.target.opset,
            options=recipe.export,
            operators=checked.target.operators,
            teacher=checked.teacher.digest,
        ),
        folders.export,
        observer,
    )
    return {"golden": golden_record, "compress": compress_record, "export": export_record}


def _with_student(recipe: Recipe, said: str | None) -> Recipe:
    return replace(recipe, compress=with_named_student(recipe.compress, said))


def _student_arch(recipe: Recipe, compressed: StageRecord) -> str:
    """The student's own architecture, empty where it has the teacher's.

    From the recipe, which the user vouches for, and never from the record: a file decides on no code.
    """
    return "" if "skipped" in compressed.facts else recipe.compress.distil.student


def _for_target(options: CompressOptions, target: Target) -> CompressOptions:
    """Keep channels in multiples that suit both the recipe and the target."""
    multiple = math.lcm(options.prune.round_to, target.channel_multiple)
    return replace(options, prune=replace(options.prune, round_to=multiple))


_Calibration: TypeAlias = tuple[ImageView, CalibrationManifest]


def _calibration_images(checked: Plan, folders: BuildFolders, observer: Observer) -> _Calibration:
    """What every stage behind the export calibrates or checks with."""
    from edgekit.export.stage import GRAPH_NAME

    spec, options, graph = checked.teacher.card.input, checked.request.recipe.calibrate, folders.export / GRAPH_NAME
    return final_calibration(checked.data, graph, spec, options, seed=checked.request.seed, observer=observer)


def _calibrated(checked: Plan, folders: BuildFolders, calibration: _Calibration, observer: Observer) -> StageRecord:
    from edgekit.calibrate.stage import CalibrateRequest, calibrate
    from edgekit.export.stage import GRAPH_NAME

    spec, (view, written) = checked.teacher.card.input, calibration
    wanted = CalibrateRequest(
        graph=folders.export / GRAPH_NAME,
        images=view.prepared(spec),
        number_format=checked.target.number_format,
        options=checked.request.recipe.calibrate,
        input=spec,
        written=written,
    )
    return calibrate(wanted, folders.calibrate, observer)


def _trained_quantised(
    checked: Plan, folders: BuildFolders, compressed: StageRecord, calibration: ImageView, observer: Observer
) -> StageRecord:
    from edgekit.compress.stage import STUDENT_NAME, student_load
    from edgekit.qat.stage import QatRequest, qat

    request, recipe, data = checked.request, checked.request.recipe, checked.data
    card = checked.teacher.card
    assert data.train is not None, "refused by plan()"
    wanted = QatRequest(
        teacher=request.model,
        student=folders.compress / STUDENT_NAME,
        exported=folders.export,
        calibrated=folders.calibrate,
        data=data.train.for_training(card.input, observer),
        images=calibration.prepared(card.input),
        opset=checked.target.opset,
        options=recipe.qat,
        compress=recipe.compress,
        export=recipe.export,
        load=request.load,
        student_load=student_load(checked.teacher, request.load, _student_arch(recipe, compressed)),
        operators=checked.target.operators,
        seed=request.seed,
    )
    return qat(wanted, folders.qat, observer)
