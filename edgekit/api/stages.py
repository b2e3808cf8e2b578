"""From a model to a bundle: `build`, and each of its stages by itself."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgekit.core.progress import NULL_OBSERVER, Observer
from edgekit.pipeline.stage_inputs import stage_inputs

if TYPE_CHECKING:
    from edgekit.config.recipe import Recipe
    from edgekit.core.stages import StageRecord
    from edgekit.pipeline.device_candidate import CandidateResult
    from edgekit.pipeline.release import BuildResult
    from edgekit.precision.options import Tolerance
    from edgekit.teacher.load_options import LoadOptions

__all__ = ["build", "bundle", "calibrate", "compress", "export", "golden", "qat"]

PathLike = str | Path


def build(  # noqa: PLR0913 - the main job's options, all by keyword
    model: PathLike,
    *,
    data: PathLike,
    target: str = "cpu",
    output: PathLike = "edgekit-build",
    calib: PathLike | None = None,
    calib_root: PathLike | None = None,
    recipe: Recipe | None = None,
    load: LoadOptions | None = None,
    student_code: str | None = None,
    seed: int = 0,
    engine: str | None = None,
    baseline: PathLike | None = None,
    observer: Observer = NULL_OBSERVER,
) -> BuildResult | CandidateResult:
    """Run the main job; `engine` names the one that ships. See `edgekit.pipeline.build.BuildRequest` for the options.

    Raises:
        EdgekitError: Something cannot be used or is not here. A build whose maps did not hold raises nothing: its
            result has `manifest.status` "blocked".
    """
    from edgekit.config.recipe import Recipe
    from edgekit.pipeline import build as building
    from edgekit.teacher.load_options import LoadOptions

    request = building.BuildRequest(
        model=Path(model),
        data=Path(data),
        output=Path(output),
        recipe=recipe or Recipe(),
        target=target,
        load=load or LoadOptions(),
        calib=None if calib is None else Path(calib),
        calib_root=None if calib_root is None else Path(calib_root),
        student_code=student_code,
        seed=seed,
        engine_name=engine,
        baseline=None if baseline is None else Path(baseline),
    )
    return building.build(request, observer)


def golden(model: PathLike, data: PathLike, output: PathLike, **options: Any) -> StageRecord:
    """Write the golden set of `model` on the held-out images of `data` to `output`.

    Args:
        model: The teacher's file.
        data: Labelled images.
        output: Folder to fill.
        **options: calib, calib_root, recipe, load, seed, observer, as for `build`.
    """
    from edgekit.teacher import golden as making

    with stage_inputs(model, data, **options) as given:
        request = making.GoldenRequest(given.model, given.load, given.images.golden, given.recipe.export.maps)
        return making.golden(request, Path(output), given.observer)


def compress(
    model: PathLike, data: PathLike, output: PathLike, *, student_code: str | None = None, **options: Any
) -> StageRecord:
    """Write the student of `model`, trained on the training images of `data`, to `output`.

    Args:
        model: The teacher's file.
        data: Labelled images.
        output: Folder to fill.
        student_code: Architecture of the student. Needed where the recipe names a "package.module:factory", which is
            only followed when it is named here too.
        **options: As for `golden`.
    """
    from edgekit.compress.distillation.trust import with_named_student
    from edgekit.compress.stage import CompressRequest
    from edgekit.compress.stage import compress as run
    from edgekit.config.recipe import Recipe, compares_taps

    recipe = options.pop("recipe", None) or Recipe()
    wanted = with_named_student(recipe.compress, student_code)
    with stage_inputs(model, data, compressing=wanted, recipe=recipe, **options) as given:
        train = given.images.train
        request = CompressRequest(
            model=given.model,
            load=given.load,
            data=train.for_training(given.loaded.card.input, given.observer) if train else None,
            options=wanted,
            student_code=student_code,
            compares_taps=compares_taps(recipe),
            seed=given.seed,
        )
        return run(request, Path(output), given.observer)


def export(
    model: PathLike,
    data: PathLike,
    output: PathLike,
    *,
    target: str = "cpu",
    teacher: PathLike | None = None,
    **options: Any,
) -> StageRecord:
    """Write the explained graph of `model` to `output`.

    Args:
        model: A student, or a teacher.
        data: Labelled images.
        output: Folder to fill.
        target: Target name.
        teacher: The student's teacher, whose digest the graph then names, so that a diagnosis knows a stale engine.
        **options: As for `golden`.
    """
    from edgekit.core.digests import digest_path
    from edgekit.export.stage import ExportRequest
    from edgekit.export.stage import export as run
    from edgekit.targets.loader import resolve_target

    wanted = resolve_target(target)
    with stage_inputs(model, data, **options) as given:
        request = ExportRequest(
            model=given.model,
            load=given.load,
            images=given.images.calibration.prepared(given.loaded.card.input),
            opset=wanted.opset,
            options=given.recipe.export,
            operators=wanted.operators,
            teacher="" if teacher is None else digest_path(Path(teacher)),
        )
        return run(request, Path(output), given.observer)


def calibrate(  # noqa: PLR0913 - all but three by keyword
    exported: PathLike,
    calib: PathLike,
    output: PathLike,
    *,
    calib_root: PathLike | None = None,
    target: str = "cpu",
    recipe: Recipe | None = None,
    tolerance: Tolerance | None = None,
    seed: int = 0,
    observer: Observer = NULL_OBSERVER,
) -> StageRecord:
    """Write scale table and Q/DQ graph for the folder `exported` that `export` filled, from the images in `calib`.

    Args:
        exported: Folder that `export` filled.
        calib: Images, no labels; or the file of a calibration set.
        output: Folder to fill.
        calib_root: Folder with the images of that set; the folder of its file unless said.
        target: Target name.
        recipe: How ranges are found, and how TensorRT builds what is measured under a tolerance.
        tolerance: A policy to keep: operations are left in float until it holds (`edgekit.precision.stage`). That it
            cannot be kept raises nothing: the record's facts then have "outcome" "fail" or "inconclusive".
        seed: Of the choice of images.
        observer: Told of the progress.
    """
    from edgekit.config.recipe import Recipe
    from edgekit.pipeline.calibration import FolderCalibration, calibrate_folder
    from edgekit.pipeline.tensorrt_demands import check_tensorrt
    from edgekit.targets.loader import resolve_target

    recipe, resolved = recipe or Recipe(), resolve_target(target)
    if tolerance is not None:
        check_tensorrt(recipe, resolved)
    wanted = FolderCalibration(
        exported=Path(exported),
        calib=Path(calib),
        target=resolved,
        options=recipe.calibrate,
        seed=seed,
        max_corrupt_share=recipe.golden.max_corrupt_share,
        tolerance=tolerance,
        tensorrt=recipe.tensorrt,
        root=None if calib_root is None else Path(calib_root),
    )
    return calibrate_folder(wanted, Path(output), observer)


def qat(  # noqa: PLR0913 - all but three by keyword
    model: PathLike,
    data: PathLike,
    output: PathLike,
    *,
    student: PathLike,
    exported: PathLike,
    calibrated: PathLike,
    target: str = "cpu",
    **options: Any,
) -> StageRecord:
    """Train a student with the rounding of its INT8 engine; see `edgekit.qat.stage`.

    Args:
        model: The teacher's file.
        data: Labelled images.
        output: Folder to fill.
        student: Folder that `compress` filled.
        exported: Folder that `export` filled from that student.
        calibrated: Folder that `calibrate` filled from that graph.
        target: Target name.
        **options: calib, calib_root, recipe, load, seed, observer, as for `golden`; what decides on the calibration
            images as for `calibrate`, since training goes on from its ranges on the same images.
    """
    from edgekit.compress.stage import STUDENT_NAME, student_load
    from edgekit.errors import BadInputError
    from edgekit.export.stage import GRAPH_NAME
    from edgekit.pipeline.data import final_calibration
    from edgekit.qat.stage import QatRequest
    from edgekit.qat.stage import qat as run
    from edgekit.targets.loader import resolve_target

    wanted = resolve_target(target)
    with stage_inputs(model, data, **options) as given:
        train, card = given.images.train, given.loaded.card
        if train is None:
            raise BadInputError("There are no images to train on: all of the data is held out.", where=str(data))
        # Those that 'calibrate' chose: the ranges that training begins with, and the check of its graph, see one set.
        calibration, _ = final_calibration(
            given.images,
            Path(exported) / GRAPH_NAME,
            card.input,
            given.recipe.calibrate,
            seed=given.seed,
            observer=given.observer,
        )
        request = QatRequest(
            teacher=given.model,
            student=Path(student) / STUDENT_NAME,
            exported=Path(exported),
            calibrated=Path(calibrated),
            data=train.for_training(card.input, given.observer),
            images=calibration.prepared(card.input),
            opset=wanted.opset,
            options=given.recipe.qat,
            compress=given.recipe.compress,
            export=given.recipe.export,
            load=given.load,
            student_load=student_load(given.loaded, given.load, given.recipe.compress.distil.student),
            operators=wanted.operators,
            seed=given.seed,
        )
        return run(request, Path(output), given.observer)


def bundle(
    build_dir: PathLike,
    *,
    target: str = "cpu",
    recipe: Recipe | None = None,
    engine: str | None = None,
    observer: Observer = NULL_OBSERVER,
) -> BuildResult:
    """Build, verify and time the engines of a build's folder where that is missing, and pack its bundle."""
    from edgekit.config.documents import read_policy
    from edgekit.config.recipe import Recipe
    from edgekit.core.stages import read_record
    from edgekit.engines.protocol import EngineOptions
    from edgekit.pipeline.engines import EnginesRequest, engines_for, run_engines
    from edgekit.pipeline.folders import BuildFolders
    from edgekit.pipeline.release import make_release
    from edgekit.pipeline.release_request import ReleaseRequest
    from edgekit.targets.loader import resolve_target
    from edgekit.targets.site import refuse_without_device

    recipe = recipe or Recipe()
    trained = recipe.qat.epochs > 0
    folders = BuildFolders(Path(build_dir), trained_quantised=trained)
    chosen = resolve_target(target)
    refuse_without_device(chosen, where=str(build_dir))
    choice, policy = engines_for(chosen, engine), read_policy(recipe.policy)
    records = {
        name: read_record(folder)
        for name, folder in (
            ("golden", folders.golden),
            ("compress", folders.compress),
            ("export", folders.export),
            ("calibrate", folders.calibrate),
            *((("qat", folders.qat),) if trained else ()),
        )
    }
    options, runs = EngineOptions(), recipe.select.latency_runs
    controls, tensorrt = recipe.verify.controls, recipe.tensorrt
    wanted = EnginesRequest(folders, chosen, choice, policy, runs, options, controls, tensorrt)
    ran = run_engines(wanted, observer)
    return make_release(ReleaseRequest(folders, chosen.name, ran, recipe, policy, records | ran.records), observer)
