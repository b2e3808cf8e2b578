"""The calibrate stage: from an FP32 graph and images to a scale table and the Q/DQ graph written from it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgekit.calibrate.adjusted import apply_adjustments
from edgekit.calibrate.boundaries import Boundaries, count_boundaries
from edgekit.calibrate.calibrator import CALIBRATORS, CalibrationContext
from edgekit.calibrate.concat_ranges import shared_by_concatenations
from edgekit.calibrate.dla_rules import check_dla_rules
from edgekit.calibrate.formats import NumberFormat, Range, number_format
from edgekit.calibrate.graph import ExplainedGraph, read_graph
from edgekit.calibrate.half_copy import refused, write_float16, write_half_copy
from edgekit.calibrate.images import CalibrationImages
from edgekit.calibrate.manifest import SET_NAME, CalibrationManifest, write_manifest
from edgekit.calibrate.options import CalibrateOptions
from edgekit.calibrate.placement import WEIGHTED_OPS, Placement, place
from edgekit.calibrate.qdq import serialise, write_qdq
from edgekit.calibrate.scale_table import SCALES_NAME, Provenance, ScaleTable, table_from_ranges, write_scales
from edgekit.calibrate.solution import Solution
from edgekit.calibrate.tensorrt_rules import check_tensorrt_rules
from edgekit.core.canonical import JsonValue, dump_canonical, write_json
from edgekit.core.digests import digest_array, digest_bytes
from edgekit.core.files import write_bytes
from edgekit.core.progress import NULL_OBSERVER, Observer
from edgekit.core.stages import Stage, StageRecord, run_stage, stage_key
from edgekit.core.workplace import kept_workplace
from edgekit.errors import BadInputError, DefectError
from edgekit.interface.card import InputSpec

__all__ = [
    "CALIBRATION_NAME",
    "MODEL_NAME",
    "CalibrateRequest",
    "QuantisedGraph",
    "calibrate",
    "check_rules",
    "quantise_graph",
]

MODEL_NAME = "model.onnx"
CALIBRATION_NAME = "calibration.json"
_CALIBRATION_FORMAT = "edgekit.calibration/1"
# 4: with the graph of the FP16 candidate.
_VERSION = 4
_SHOWN = 4


@dataclass(frozen=True)
class CalibrateRequest:
    """What is to be calibrated.

    Attributes:
        graph: The explained FP32 graph, an ONNX file.
        images: The calibration images, already chosen: at most `options.images` of them.
        number_format: Name of the target's number format.
        options: Method and parameters.
        input: How images became the network's input; lets a method round them on the grid they were captured on.
        written: What is written down of the images; None writes nothing. Its digests are those of `images`.
    """

    graph: Path
    images: CalibrationImages
    number_format: str
    options: CalibrateOptions
    input: InputSpec | None = None
    written: CalibrationManifest | None = None


@dataclass(frozen=True)
class QuantisedGraph:
    """A quantised graph and how it came about.

    Attributes:
        model: The Q/DQ `onnx.ModelProto`.
        table: The scale table it was written from.
        graph: The FP32 graph that was quantised, adjusted where the method adjusts it.
        placement: What was quantised in it.
        solution: What the method chose.
    """

    model: Any
    table: ScaleTable
    graph: ExplainedGraph
    placement: Placement
    solution: Solution

    @property
    def clipped(self) -> Mapping[str, float]:
        """Share of values outside the chosen range, for each tensor that has a histogram."""
        limits = {name: Range(entry.low, entry.high) for name, entry in self.table.activations.items()}
        return {
            name: stats.counted.share_outside(limits[name])
            for name, stats in self.solution.statistics.items()
            if stats.counted is not None and name in limits
        }


def calibrate(request: CalibrateRequest, destination: Path, observer: Observer = NULL_OBSERVER) -> StageRecord:
    """Fill `destination` with `scales.json`, `model.onnx` (Q/DQ) and `calibration.json`, unless it holds them already.

    For TensorRT's number format there are `model.fp16.onnx`, the Q/DQ graph with FP16 types, and `float16.onnx`, the
    FP32 graph with FP16 types; see `half_copy`.

    Args:
        request: Graph, images, number format and options.
        destination: Folder of the results.
        observer: Told of the progress.

    Raises:
        BadInputError: The graph is not an explained FP32 graph of opset 13 or later, there are no images or too many,
            images do not fit the graph, an activation or weight is not finite, an exclusion matches nothing, or a name
            is unknown.
        UnavailableError: ONNX Runtime is not here or failed.
    """
    fmt = number_format(request.number_format)
    images = _checked_images(request.images, request.options)
    written = request.written
    if written is not None and written.digests != images.digests:
        raise DefectError("A calibration set was written down that is not the one that calibrates.")
    told = {} if written is None else {"set": written.digest}
    first_batch = _first_batch(request)
    stage = Stage(
        name="calibrate",
        version=_VERSION,
        options=_options(request),
        inputs={"graph": request.graph},
        # The files do not say how they are prepared: a card with another mean would otherwise meet an old result.
        digests={"images": _digest_of_set(images), "prepared": digest_array(first_batch), **told},
    )

    def body(folder: Path, workplace: Path) -> Mapping[str, JsonValue]:
        graph = read_graph(request.graph)
        result = quantise_graph(
            graph, images, fmt, request.options, observer, input_spec=request.input, workplace=workplace
        )
        data = serialise(result.model)
        write_scales(folder / SCALES_NAME, result.table)
        write_bytes(folder / MODEL_NAME, data)
        typed = write_half_copy(folder / MODEL_NAME, fmt, first_batch, observer)
        typed |= write_float16(request.graph, folder, fmt, first_batch, observer)
        write_json(folder / CALIBRATION_NAME, _manifest(result.table, images))
        if written is not None:
            write_manifest(folder / SET_NAME, written)
        boundaries = count_boundaries(result.model)
        # The rule is TensorRT's; other runtimes gain from a single matrix in integers.
        if boundaries.lone and fmt.placement == "tensorrt":
            observer.noted(_lone_words(boundaries))
        facts = _facts(result, len(images.digests)) | typed | {"boundaries": boundaries.to_dict()}
        if fmt.placement == "tensorrt":
            left = check_dla_rules(result.model)
            facts["dla_left_over"] = {"count": len(left), "examples": list(left[:_SHOWN])}
        steps = f"{boundaries.per_operation:.2f} steps between float and integers an operation"
        before = request.graph.stat().st_size
        size = f"{before / 1e6:.2f} MB to {len(data) / 1e6:.2f} MB"
        return facts | {
            "bytes_before": before,
            "bytes_after": len(data),
            "boundaries_per_operation": boundaries.per_operation,
            "summary": f"{fmt.name} by {request.options.method} on {len(images.digests)} images, {size}, {steps}"
            + _chosen(result)
            + refused(typed),
        }

    with kept_workplace(destination, stage_key(stage)) as workplace:
        return run_stage(stage, destination, lambda folder: body(folder, workplace), observer)


def quantise_graph(  # noqa: PLR0913 - everything a method may draw on, the rarer part by keyword
    graph: ExplainedGraph,
    images: CalibrationImages,
    fmt: NumberFormat,
    options: CalibrateOptions,
    observer: Observer = NULL_OBSERVER,
    *,
    input_spec: InputSpec | None = None,
    workplace: Path | None = None,
) -> QuantisedGraph:
    """Calibrate and quantise an explained FP32 graph.

    Args:
        graph: The FP32 graph.
        images: The calibration images.
        fmt: Number format.
        options: Method and parameters.
        observer: Told of the progress.
        input_spec: As `CalibrateRequest.input`.
        workplace: As `CalibrationContext.workplace`.

    Raises:
        EdgekitError: As `calibrate`.
    """
    images = _checked_images(images, options)
    placement = place(graph, fmt, options.exclude)
    calibrator = CALIBRATORS.load(options.method)(options)
    context = CalibrationContext(graph, placement, fmt, images, options, observer, input_spec, workplace)
    solution = calibrator.solve(context)
    parameters = dict(calibrator.parameters)
    if options.concat == "shared":
        solution = replace(solution, ranges=shared_by_concatenations(graph, placement, solution.ranges))
        parameters["concat"] = options.concat
    provenance = Provenance(
        graph=graph.digest,
        images=_digest_of_set(images),
        method=calibrator.name,
        parameters=parameters,
        exclude=options.exclude,
    )
    adjusted = apply_adjustments(graph, solution.adjustments)
    if adjusted is not graph:
        placement = place(adjusted, fmt, options.exclude)
    table = table_from_ranges(adjusted, placement, fmt, solution, provenance)
    model = write_qdq(graph, table)
    check_rules(model, fmt, options.exclude)
    _note_float_weights(adjusted, placement, options, observer)
    return QuantisedGraph(model, table, adjusted, placement, solution)


def _checked_images(images: CalibrationImages, options: CalibrateOptions) -> CalibrationImages:
    count = len(images.digests)
    if count == 0:
        raise BadInputError(
            "There are no calibration images.",
            expected="at least one image",
            hint="name a folder of images like those the device will see with --calib or --data",
        )
    if options.images and count > options.images:
        raise BadInputError(
            "There are more calibration images than the recipe allows.",
            expected=f"at most {options.images}",
            found=str(count),
            hint="raise calibrate.images, or set it to 0 for all",
        )
    return images


def _digest_of_set(images: CalibrationImages) -> str:
    return digest_bytes(dump_canonical(list(images.digests)))


def _first_batch(request: CalibrateRequest) -> npt.NDArray[np.float32]:
    batch = next(request.images.batches(request.options.batch_size), None)
    if batch is None:
        raise BadInputError(
            "The calibration set holds another number of images than it says.",
            expected=f"{len(request.images.digests)} images",
            found="0",
        )
    return batch


def _options(request: CalibrateRequest) -> Mapping[str, JsonValue]:
    options: dict[str, JsonValue] = asdict(request.options)
    described: JsonValue = None if request.input is None else asdict(request.input)
    return options | {"number_format": request.number_format, "input": described}


def _manifest(table: ScaleTable, images: CalibrationImages) -> dict[str, JsonValue]:
    origin = table.provenance
    return {
        "format": _CALIBRATION_FORMAT,
        "number_format": table.number_format,
        "method": {"name": origin.method, "parameters": dict(origin.parameters)},
        "graph": origin.graph,
        "images": list(images.digests),
    }


def _facts(result: QuantisedGraph, images: int) -> dict[str, JsonValue]:
    graph = result.graph
    left = Counter((graph.nodes[index].op_type, why) for index, why in result.placement.left_float.items())
    kinds = Counter(graph.nodes[index].op_type for index in result.placement.quantised)
    return {
        "number_format": result.table.number_format,
        "images": images,
        "quantised_tensors": len(result.placement.activations),
        "quantised_operations": dict(sorted(kinds.items())),
        "float_operations": [
            {"operation": kind, "count": count, "reason": why} for (kind, why), count in sorted(left.items())
        ],
        "clipped_share": dict(result.clipped),
        "method": dict(result.solution.facts),
    }


def _chosen(result: QuantisedGraph) -> str:
    """What a method that judges candidates took, and its drift beside min-max's."""
    facts = result.solution.facts
    if "chosen" not in facts:
        return ""
    return f"; chose {facts['chosen']}, with {facts['relative_drift']:.2f} of the drift of min-max"


def check_rules(model: Any, fmt: NumberFormat, exclude: Iterable[str] = ()) -> None:
    """Raise `DefectError` where a Q/DQ `onnx.ModelProto` breaks a rule of the runtime it was placed for.

    Args:
        model: The graph.
        fmt: The number format that it was placed for.
        exclude: The patterns that it was placed with.
    """
    violations = check_tensorrt_rules(model, exclude) if fmt.placement == "tensorrt" else ()
    if violations:
        raise DefectError(
            "The quantised graph breaks a rule of its runtime.", where=fmt.name, found="; ".join(violations[:3])
        )


def _lone_words(boundaries: Boundaries) -> str:
    names = ", ".join(boundaries.lone[:_SHOWN])
    more = f" and {len(boundaries.lone) - _SHOWN} more" if len(boundaries.lone) > _SHOWN else ""
    return (
        f"calibrate: {len(boundaries.lone)} of {boundaries.quantised} operations in integers have float on both sides, "
        f"which is often slower than float alone: {names}{more}; calibrate.exclude leaves them in float"
    )


def _note_float_weights(
    graph: ExplainedGraph, placement: Placement, options: CalibrateOptions, observer: Observer
) -> None:
    """Operations with weights are what quantisation is for; those it leaves alone unasked are worth a line."""
    for index, why in placement.left_float.items():
        node = graph.nodes[index]
        if node.op_type in WEIGHTED_OPS and not (options.exclude and why.startswith("excluded")):
            observer.noted(f"calibrate: {node.op_type} {node.name!r} stays in float: {why}")
