"""Calibration of an exported folder by itself: which images serve for what, and which engine judges a tolerance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from edgekit.attribution.spec import MapSpec
from edgekit.bundle.golden import read_golden
from edgekit.calibrate.manifest import CalibrationManifest, given_set, manifest_of
from edgekit.calibrate.options import CalibrateOptions
from edgekit.calibrate.selection import select_images
from edgekit.calibrate.stage import CalibrateRequest, calibrate
from edgekit.core.canonical import read_json
from edgekit.core.progress import NULL_OBSERVER, Observer
from edgekit.core.stages import StageRecord
from edgekit.engines.tensorrt.settings import TensorRtSettings
from edgekit.errors import IntegrityError, UnavailableError
from edgekit.images.imageset import ImageItem, read_unlabelled
from edgekit.images.views import ImageView
from edgekit.interface.card import ModelCard
from edgekit.pipeline.engines import engine_for
from edgekit.precision.options import Tolerance
from edgekit.precision.request import BudgetRequest, EngineHere
from edgekit.precision.stage import find_budget
from edgekit.precision.yardstick import GraphYardstick, StoredYardstick, Yardstick, divide_images
from edgekit.targets.loader import Target, check_target_runs_here

__all__ = ["FolderCalibration", "calibrate_folder", "judging_engine"]

_GRAPH_NAME, _INTERFACE_NAME = "model.onnx", "interface.json"


@dataclass(frozen=True)
class FolderCalibration:
    """What is calibrated.

    Attributes:
        exported: Folder that `export` filled.
        calib: Folder of images, whose labels do not matter; or the file of a calibration set, whose images are found
            in `root`.
        target: Whose number format and engine.
        options: Method and parameters.
        seed: Of the choice of images.
        max_corrupt_share: Share of unreadable files that is tolerated.
        tolerance: What has to be kept; None quantises everything that can be.
        tensorrt: How TensorRT builds and runs the candidates that are measured under a tolerance.
        root: Folder with the images of a calibration set; None for the folder that the set's file lies in.
    """

    exported: Path
    calib: Path
    target: Target
    options: CalibrateOptions
    seed: int
    max_corrupt_share: float
    tolerance: Tolerance | None = None
    tensorrt: TensorRtSettings = field(default_factory=TensorRtSettings)
    root: Path | None = None

    @property
    def graph(self) -> Path:
        """The FP32 graph."""
        return self.exported / _GRAPH_NAME


def calibrate_folder(wanted: FolderCalibration, destination: Path, observer: Observer = NULL_OBSERVER) -> StageRecord:
    """Calibrate, under a tolerance where one is given.

    Raises:
        BadInputError: The images or the golden set cannot be used; or as `calibrate` and `find_budget`.
        IntegrityError: The exported folder's description or the calibration set is malformed.
    """
    card, map_spec = _described(wanted.exported / _INTERFACE_NAME)
    found = given_set(wanted.calib, wanted.root, wanted.calib.parent, observer)
    given, items = found or (None, _read(wanted, observer))
    if wanted.tolerance is None:
        view, written = (ImageView(items), given) if given else _chosen(items, wanted, card, observer)
        request = CalibrateRequest(
            graph=wanted.graph,
            images=view.prepared(card.input),
            number_format=wanted.target.number_format,
            options=wanted.options,
            input=card.input,
            written=written,
        )
        return calibrate(request, destination, observer)
    return _within(wanted, wanted.tolerance, items, (card, map_spec), destination, observer)


def _within(
    wanted: FolderCalibration,
    tolerance: Tolerance,
    items: Sequence[ImageItem],
    described: tuple[ModelCard, MapSpec],
    destination: Path,
    observer: Observer,
) -> StageRecord:
    card, map_spec = described
    yardstick: Yardstick
    if tolerance.golden is None:
        pool, held_out = divide_images(items, wanted.options.images, wanted.seed, where=str(wanted.calib))
        chosen, _ = _chosen(pool, wanted, card, observer)
        yardstick = GraphYardstick(wanted.graph, ImageView(held_out), card, map_spec)
    else:
        stored = StoredYardstick(read_golden(tolerance.golden))
        stored.check_fits(card, str(tolerance.golden))
        chosen, _ = _chosen(items, wanted, card, observer)
        stored.refuse_leak(chosen)
        yardstick = stored
    request = BudgetRequest(
        graph=wanted.graph,
        images=chosen.prepared(card.input),
        yardstick=yardstick,
        policy=tolerance.policy,
        number_format=wanted.target.number_format,
        calibration=wanted.options,
        input=card.input,
        engine=judging_engine(wanted.target),
        options=tolerance.options,
        tensorrt=wanted.tensorrt,
        costs=tolerance.costs,
    )
    return find_budget(request, destination, observer)


def judging_engine(target: Target, *, machine: str | None = None) -> EngineHere:
    """The target's engine where it runs here, else the reference that computes its Q/DQ graph in float.

    Args:
        target: The target.
        machine: What `platform.machine()` says, unless given.
    """
    try:
        check_target_runs_here(target, machine=machine)
        return EngineHere(engine_for(target))
    except UnavailableError as cause:
        told = f"the engine of {target.name!r} does not run here"
        return EngineHere("reference", of_target=False, told=f"{told} ({cause.found})" if cause.found else told)


def _described(path: Path) -> tuple[ModelCard, MapSpec]:
    raw = read_json(path)
    try:
        card, spec = raw["card"], raw["map"]
    except (KeyError, TypeError) as cause:
        raise IntegrityError("The description of an exported graph is malformed.", where=str(path)) from cause
    return ModelCard.from_dict(card, where=str(path)), MapSpec.from_dict(spec, where=str(path))


def _read(wanted: FolderCalibration, observer: Observer) -> tuple[ImageItem, ...]:
    found = read_unlabelled(wanted.calib, max_corrupt_share=wanted.max_corrupt_share, observer=observer)
    for rejected in found.rejected:
        observer.noted(f"{rejected.name} is left out: {rejected.reason}")
    return found.items


def _chosen(
    items: Sequence[ImageItem], wanted: FolderCalibration, card: ModelCard, observer: Observer
) -> tuple[ImageView, CalibrationManifest]:
    chosen = select_images(items, wanted.graph, card.input, wanted.options, seed=wanted.seed, observer=observer)
    return ImageView([entry.item for entry in chosen]), manifest_of(chosen, wanted.options.selection)
