"""Blame and hop ledger of a bundle: what is read from it, and what is found."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgekit import __version__
from edgekit.blame.exclusion import Exclusion, exclude_until, exclude_worst
from edgekit.blame.ledger import Ledger, LedgerRequest, ledger
from edgekit.blame.options import BlameOptions
from edgekit.blame.rounding import RoundingBench, own_classes
from edgekit.blame.tensors import Blame, blame_tensors
from edgekit.bundle.golden import GoldenSet
from edgekit.bundle.layout import MODEL, RECIPE, REFERENCE, SCALES
from edgekit.bundle.open import Bundle
from edgekit.calibrate.graph import ExplainedGraph, parse_graph
from edgekit.calibrate.scale_table import ScaleTable
from edgekit.core.progress import NULL_OBSERVER, Observer
from edgekit.engines.onnx_artifact import ENGINE_NODE
from edgekit.engines.tensorrt.onnx_outline import read_outline
from edgekit.errors import BadInputError, UsageError
from edgekit.images.imageset import read_unlabelled, select_balanced
from edgekit.images.views import ImageView
from edgekit.interface.preprocess import preprocess
from edgekit.policy.policy import Policy
from edgekit.verify.gate import bundle_policy

__all__ = ["BLAME_FORMAT", "BlameReport", "BlameRequest", "blame"]

BLAME_FORMAT = "edgekit.blame/1"


@dataclass(frozen=True)
class BlameRequest:
    """What is to be blamed.

    Attributes:
        bundle: The opened bundle.
        options: How.
        images: A folder of images that drift is measured on; None takes the bundle's golden set. The hop ledger is
            about the golden set whatever stands here: only of its images the teacher's maps are known.
        build: Output folder of the build, which holds the student; None leaves the student's hop unmeasured.
        student_code: The student's architecture as the user named it, where it is code of the user's.
        policy: What hops are judged by; None takes the bundle's own.
        hops_only: Leave the tensors alone and only write the ledger.
    """

    bundle: Bundle
    options: BlameOptions = field(default_factory=BlameOptions)
    images: Path | None = None
    build: Path | None = None
    student_code: str | None = None
    policy: Policy | None = None
    hops_only: bool = False


@dataclass(frozen=True)
class BlameReport:
    """What was found.

    Attributes:
        bundle: Digest of the bundle.
        target: Name of the target that it was built for.
        precision: Of what ships.
        source: What drift was measured on, in words.
        images: SHA-256 of each of those images.
        class_names: What the classes are called.
        blame: Tensor by tensor; None where only hops were wanted.
        exclusion: The list for `calibrate.exclude`; None where none was wanted.
        ledger: Hop by hop.
        recipe: The bundle's recipe, JSON-ready.
    """

    bundle: str
    target: str
    precision: str
    source: str
    images: tuple[str, ...]
    class_names: tuple[str, ...]
    blame: Blame | None
    exclusion: Exclusion | None
    ledger: Ledger
    recipe: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        return {
            "format": BLAME_FORMAT,
            "edgekit": __version__,
            "bundle": self.bundle,
            "target": self.target,
            "precision": self.precision,
            "images": {"source": self.source, "digests": list(self.images)},
            "class_names": list(self.class_names),
            "blame": None if self.blame is None else self.blame.to_dict(),
            "exclusion": None if self.exclusion is None else self.exclusion.to_dict(),
            "ledger": self.ledger.to_dict(),
        }


def blame(request: BlameRequest, observer: Observer = NULL_OBSERVER) -> BlameReport:
    """Say which rounding moved a bundle's maps, and at which hop they were lost.

    Raises:
        UsageError: Hops alone are wanted, and something that tensors are needed for.
        BadInputError: The bundle ships FP32 or FP16, so no tensor is rounded to integers in it; a folder's images
            cannot be used; the build folder is another build's.
        IntegrityError: A file of the bundle changed or does not fit.
        UnavailableError: ONNX Runtime is not here.
    """
    opened = request.bundle
    manifest = opened.manifest
    options = request.options
    if request.hops_only and (request.images or options.exclude_worst or options.until):
        raise UsageError(
            "Hops alone say nothing of tensors: other images and an exclude list need the tensors looked at.",
            hint="leave out --hops-only",
        )
    if manifest.precision != "int8" and not request.hops_only:
        raise BadInputError(
            f"This bundle ships {manifest.precision.upper()}: nothing in it is rounded to integers, so no tensor is "
            "to blame.",
            where=str(opened.source),
            expected="a bundle that ships INT8",
            found=f"precision {manifest.precision}",
            hint="--hops-only follows the map from the teacher to the engine",
        )
    golden = opened.golden()
    name = REFERENCE if REFERENCE in opened else MODEL
    graph = _graph(opened, name)
    table = None
    if SCALES in opened:
        table = ScaleTable.from_dict(opened.read_json(SCALES), where=str(opened.path(SCALES)))
    chosen = _golden_images(golden, options.samples)
    if request.images is not None:
        chosen = _folder_images(request.images, golden, graph, options.samples, observer)
    found = exclusion = None
    if not request.hops_only and table is not None:
        bench = RoundingBench(graph, table, chosen.images, chosen.explained, threads=options.threads)
        found = blame_tensors(bench, chosen.classes, order=options.order, observer=observer)
        exclusion = _exclusion(bench, found, options, observer)
    wanted = LedgerRequest(opened, request.policy or bundle_policy(opened), request.build, request.student_code)
    return BlameReport(
        bundle=manifest.digest,
        target=manifest.target,
        precision=manifest.precision,
        source=chosen.source,
        images=chosen.digests,
        class_names=golden.card.classes,
        blame=found,
        exclusion=exclusion,
        ledger=ledger(wanted, golden, graph, table, observer),
        recipe=dict(opened.read_json(RECIPE)),
    )


def _graph(opened: Bundle, name: str) -> ExplainedGraph:
    """The FP32 graph. Engines that ONNX Runtime's TensorRT provider compiled are ONNX files without one."""
    data, where = opened.read_bytes(name), str(opened.path(name))
    if any(node.operator == ENGINE_NODE for node in read_outline(data, where).nodes):
        raise BadInputError(
            "This bundle holds engines that were compiled, and no graph whose tensors could be looked at.",
            where=where,
            expected="an explained FP32 graph",
            found=f"an ONNX file with a node {ENGINE_NODE}, of the engine {opened.manifest.engine!r}",
            hint="build again into the same folder with --engine ort-cuda, whose graphs are the same, and blame that",
        )
    return parse_graph(data, where=where)


@dataclass(frozen=True)
class _Chosen:
    """Images that drift is measured on."""

    source: str
    digests: tuple[str, ...]
    images: npt.NDArray[np.float32]
    explained: npt.NDArray[np.int32]
    classes: npt.NDArray[np.int64]


def _golden_images(golden: GoldenSet, samples: int) -> _Chosen:
    """Golden images, the teacher's classes taking turns; which of a class follows from the images alone."""
    digests = golden.digests
    turns: dict[int, int] = {}
    order = []
    for at in sorted(range(len(golden)), key=lambda at: digests[at]):
        label = int(golden.teacher_class[at])
        turns[label] = turns.get(label, 0) + 1
        order.append((turns[label], label, at))
    chosen = sorted(at for _, _, at in sorted(order)[: samples or len(order)])
    return _Chosen(
        source="the golden set, maps of the teacher's classes",
        digests=tuple(digests[at] for at in chosen),
        images=preprocess(golden.pixels[chosen], golden.card.input),
        explained=golden.explained_classes[chosen],
        classes=golden.teacher_class[chosen],
    )


def _folder_images(folder: Path, golden: GoldenSet, graph: ExplainedGraph, samples: int, observer: Observer) -> _Chosen:
    """A folder's images; nobody's labels are asked for, and classes are the FP32 graph's own."""
    items = select_balanced(read_unlabelled(folder, observer=observer).items, samples, seed=0)
    view = ImageView(items)
    spec = golden.card.input
    images = preprocess(view.pixels(spec.height, spec.width, observer), spec)
    positive = golden.map_spec.class_choice == "positive"
    return _Chosen(
        source=f"{folder.name}, maps of the FP32 graph's own classes",
        digests=view.digests,
        images=images,
        explained=own_classes(graph, images, golden.map_spec.classes, only_positive=positive),
        classes=own_classes(graph, images, golden.map_spec.classes)[:, 0].astype(np.int64),
    )


def _exclusion(bench: RoundingBench, found: Blame, options: BlameOptions, observer: Observer) -> Exclusion | None:
    if options.exclude_worst is not None:
        return exclude_worst(bench, found, options.exclude_worst, observer)
    if options.until is not None:
        return exclude_until(bench, found, *options.until, observer)
    return None
