"""The work: calibrate once, rank, search, time, choose."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edgekit.bundle.golden import GoldenSet
from edgekit.calibrate.adjusted import apply_adjustments
from edgekit.calibrate.formats import NumberFormat, number_format
from edgekit.calibrate.graph import ExplainedGraph, read_graph
from edgekit.calibrate.placement import place
from edgekit.calibrate.scale_table import SCALES_NAME, ScaleTable, read_scales
from edgekit.calibrate.stage import CalibrateRequest, calibrate
from edgekit.core.canonical import dump_canonical
from edgekit.core.digests import digest_bytes
from edgekit.core.progress import NULL_OBSERVER, Observer
from edgekit.interface.preprocess import preprocess
from edgekit.precision.assignment import Operation, quantised_operations
from edgekit.precision.candidate import Candidate
from edgekit.precision.choice import Choice, choose, slower_in_words
from edgekit.precision.costs import CostTable, check_costs, read_costs
from edgekit.precision.laboratory import Laboratory, Subject
from edgekit.precision.latency import CandidateLatency, estimated, not_measured, timed
from edgekit.precision.pareto import frontier, named, worth_timing
from edgekit.precision.ranking import Ranked, rank_operations, recalled_ranking, store_ranking
from edgekit.precision.request import BudgetRequest
from edgekit.precision.search import SearchResult, find_lifted

__all__ = ["FULL_NAME", "Budget", "Prepared", "budget_of", "prepare"]

FULL_NAME = "int8"
"""Folder of the calibration with nothing lifted, inside the workplace."""

_TIMED_IMAGES = 8


@dataclass(frozen=True)
class Prepared:
    """What is settled before anything is searched.

    Attributes:
        graph: The FP32 graph.
        fmt: Number format.
        table: The table with nothing lifted.
        operations: All that can be lifted.
        float_precisions: What operations outside INT8 may compute in.
        costs: The cost table, checked against the graph, or None.
    """

    graph: ExplainedGraph
    fmt: NumberFormat
    table: ScaleTable
    operations: tuple[Operation, ...]
    float_precisions: tuple[str, ...]
    costs: CostTable | None


@dataclass(frozen=True)
class Budget:
    """What was found.

    Attributes:
        candidates: Every measured assignment by name, from full INT8 to FP32.
        kept: Names of those that were timed, or would have been: what a frontier is drawn through.
        front: Names of those among them that no other beats.
        choice: Which one, and why.
        latency: What is known of their latencies.
        ranking: Operations, the most harmful first; empty where nothing had to be lifted.
        search: Every question that was asked.
        notes: What a reader has to know, in words.
    """

    candidates: Mapping[str, Candidate]
    kept: tuple[str, ...]
    front: tuple[str, ...]
    choice: Choice
    latency: CandidateLatency
    ranking: tuple[Ranked, ...]
    search: SearchResult | None
    notes: tuple[str, ...]


def prepare(request: BudgetRequest, workplace: Path, observer: Observer = NULL_OBSERVER) -> Prepared:
    """Calibrate with nothing lifted, and check what could be wrong with the request.

    Raises:
        EdgekitError: As `calibrate` and `read_costs`.
    """
    fmt = number_format(request.number_format)
    costs = None if request.costs is None else read_costs(request.costs)
    graph = read_graph(request.graph)
    _calibrate(request, request.calibration.exclude, workplace / FULL_NAME, observer)
    table = read_scales(workplace / FULL_NAME / SCALES_NAME)
    adjusted = apply_adjustments(graph, table.adjustments)
    names = {graph.nodes[index].name for index in graph.forward}
    placement = place(adjusted, fmt, request.calibration.exclude)
    operations = quantised_operations(adjusted, placement, names, joins=fmt.placement != "tensorrt")
    # TensorRT's builder chooses, unless the recipe does; processors have FP32.
    half = fmt.placement == "tensorrt" and request.tensorrt.float_type != "fp32"
    prepared = Prepared(graph, fmt, table, operations, ("fp16", "fp32") if half else ("fp32",), costs)
    if costs is not None:
        every = {node.name for node in graph.nodes}
        lifted = [item.name for item in operations]
        check_costs(costs, every, lifted, prepared.float_precisions, where=str(request.costs))
    return prepared


def budget_of(
    request: BudgetRequest, prepared: Prepared, golden: GoldenSet, workplace: Path, observer: Observer = NULL_OBSERVER
) -> tuple[Budget, Laboratory]:
    """Search, time and choose.

    Returns:
        What was found, and the laboratory that knows the candidates' files.

    Raises:
        EdgekitError: The engine cannot run a candidate, or stopped while it was timed.
    """
    subject = Subject(
        path=request.graph,
        graph=prepared.graph,
        table=prepared.table,
        operations=prepared.operations,
        recalibrate=_recalibration(request, workplace, observer),
        golden=golden,
        policy=request.policy,
        engine=request.engine.name,
        tensorrt=request.tensorrt,
    )
    laboratory = Laboratory(subject, workplace / "candidates", observer)
    fp32, int8 = laboratory.measure(laboratory.everything), laboratory.measure(frozenset())
    ranking: tuple[Ranked, ...] = ()
    search = None
    if fp32.holds and not int8.holds:
        ranking = _ranking(request, prepared, workplace, observer)
        search = find_lifted([item.operation.name for item in ranking], laboratory.holds)
    candidates = named(laboratory.measured)
    kept = worth_timing(candidates, request.options.timed)
    latency = _latency(request, prepared, laboratory, {name: candidates[name] for name in kept}, golden, observer)
    choice = choose(candidates, latency)
    pool = {name: candidates[name] for name in kept}
    notes = _notes(request, prepared, candidates, latency, choice)
    front = frontier(pool, latency.milliseconds if latency.known else None)
    return Budget(candidates, kept, front, choice, latency, ranking, search, notes), laboratory


def _calibrate(request: BudgetRequest, exclude: tuple[str, ...], folder: Path, observer: Observer) -> None:
    wanted = CalibrateRequest(
        graph=request.graph,
        images=request.images,
        number_format=request.number_format,
        options=replace(request.calibration, exclude=exclude),
        input=request.input,
    )
    calibrate(wanted, folder, observer)


def _recalibration(
    request: BudgetRequest, workplace: Path, observer: Observer
) -> Callable[[tuple[str, ...]], ScaleTable]:
    def recalibrate(exclude: tuple[str, ...]) -> ScaleTable:
        folder = workplace / f"calibrated-{digest_bytes(dump_canonical(list(exclude)))[:16]}"
        _calibrate(request, exclude, folder, observer)
        return read_scales(folder / SCALES_NAME)

    return recalibrate


def _ranking(request: BudgetRequest, prepared: Prepared, workplace: Path, observer: Observer) -> tuple[Ranked, ...]:
    path = workplace / "ranking.json"
    known = recalled_ranking(path, prepared.operations)
    if known is not None:
        return known
    images = _first(request, request.options.ranking_images)
    ranking = rank_operations(prepared.graph, prepared.table, prepared.operations, images, observer)
    store_ranking(path, ranking)
    return ranking


def _first(request: BudgetRequest, count: int) -> npt.NDArray[np.float32]:
    """The first calibration images: those that are judged must not choose what is lifted first."""
    parts: list[npt.NDArray[np.float32]] = []
    for batch in request.images.batches(request.calibration.batch_size):
        parts.append(batch)
        if sum(map(len, parts)) >= count:
            break
    return np.concatenate(parts)[:count]


def _latency(
    request: BudgetRequest,
    prepared: Prepared,
    laboratory: Laboratory,
    kept: Mapping[str, Candidate],
    golden: GoldenSet,
    observer: Observer,
) -> CandidateLatency:
    runs = request.options.latency_runs
    if request.engine.of_target and runs:
        images = preprocess(golden.pixels[:_TIMED_IMAGES], golden.card.input)
        artifacts = {name: laboratory.artifact(candidate) for name, candidate in kept.items()}
        return timed(artifacts, request.engine.name, images, runs, observer)
    if prepared.costs is not None:
        return estimated(prepared.costs, kept, tuple(kept), prepared.float_precisions)
    if not request.engine.of_target:
        return not_measured(f"{request.engine.told}; no cost table was given")
    return not_measured("no timed runs were asked for")


def _notes(
    request: BudgetRequest,
    prepared: Prepared,
    candidates: Mapping[str, Candidate],
    latency: CandidateLatency,
    choice: Choice,
) -> tuple[str, ...]:
    notes = [*slower_in_words(candidates, latency, choice.name)]
    if not latency.known:
        notes.append(f"latency is not measured: {latency.told}")
    if prepared.costs is not None and latency.source == "measured":
        notes.append("the cost table was not used: the target's engine runs here and was measured")
    if not request.engine.of_target:
        notes.append(f"judged by the engine {request.engine.name!r}, not the target's: {request.engine.told}")
    if "fp16" in prepared.float_precisions:
        notes.append("what is lifted is float: FP16/FP32 left to the builder; not run on TensorRT")
    elif prepared.fmt.placement == "tensorrt":
        notes.append("what is lifted is FP32, as tensorrt.float_type says; not run on TensorRT")
    else:
        notes.append("what is lifted is FP32: there is no FP16 on this target")
    if not prepared.fmt.stored_weights:
        notes.append("sizes are of ONNX graphs, which hold float weights in this number format: engines' differ")
    if any(item.recalibrated for item in candidates.values()):
        notes.append("some candidates round tensors that full INT8 does not, and were calibrated anew")
    return tuple(notes)
