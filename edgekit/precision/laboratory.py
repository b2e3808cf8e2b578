"""Where assignments become engines and are measured, each once, however often the program is killed in between."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from edgekit.bundle.golden import GoldenSet
from edgekit.calibrate import half_copy
from edgekit.calibrate.adjusted import apply_adjustments
from edgekit.calibrate.formats import number_format
from edgekit.calibrate.graph import ExplainedGraph
from edgekit.calibrate.placement import place
from edgekit.calibrate.qdq import serialise, write_qdq
from edgekit.calibrate.scale_table import SCALES_NAME, ScaleTable, write_scales
from edgekit.calibrate.stage import MODEL_NAME, check_rules
from edgekit.core.canonical import JsonValue, dump_canonical, read_json, write_json
from edgekit.core.digests import digest_bytes, digest_file
from edgekit.core.files import atomic_directory, write_bytes
from edgekit.core.progress import NULL_OBSERVER, Observer
from edgekit.engines.half_graph import half_graph_beside
from edgekit.engines.protocol import EngineOptions
from edgekit.engines.tensorrt.settings import TensorRtSettings
from edgekit.engines.tuning import RangesBeside, Tuning, tuned_engine
from edgekit.errors import EdgekitError
from edgekit.interface.preprocess import preprocess
from edgekit.policy.policy import Policy
from edgekit.policy.verdict import judge
from edgekit.precision.assignment import Operation, exclude_patterns, leaves_nothing
from edgekit.precision.candidate import Candidate, measured_drift, top1_accuracy
from edgekit.precision.lifting import lifted_table
from edgekit.verify.answers import answer_golden
from edgekit.verify.score import score_answers

__all__ = ["ARTIFACT_NAME", "Laboratory", "Subject"]

ARTIFACT_NAME = "engine.bin"
_CANDIDATE_NAME = "candidate.json"


@dataclass(frozen=True)
class Subject:
    """What is assigned precisions, and how it is judged.

    Attributes:
        path: File of the FP32 graph.
        graph: The same, read.
        table: Its table with nothing lifted.
        operations: All that can be lifted, in graph order.
        recalibrate: Calibrates anew with these exclusions, for a placement whose ranges `table` does not know.
        golden: Images and the teacher's answers.
        policy: What is demanded.
        engine: Registry name of the engine that answers.
        tensorrt: How it builds and runs, where it is TensorRT.
    """

    path: Path
    graph: ExplainedGraph
    table: ScaleTable
    operations: tuple[Operation, ...]
    recalibrate: Callable[[tuple[str, ...]], ScaleTable]
    golden: GoldenSet
    policy: Policy
    engine: str
    tensorrt: TensorRtSettings = field(default_factory=TensorRtSettings)


class Laboratory:
    """Measures assignments.

    Args:
        subject: What is measured.
        folder: Where candidates lie. It belongs to this subject alone: what is found there is taken for measured.
        observer: Told of every candidate.

    Attributes:
        measured: Every candidate so far.
    """

    def __init__(self, subject: Subject, folder: Path, observer: Observer = NULL_OBSERVER) -> None:
        self._subject = subject
        self._folder = folder
        self._observer = observer
        self.measured: list[Candidate] = []

    @property
    def everything(self) -> frozenset[str]:
        """All operations lifted: the FP32 graph."""
        return frozenset(item.name for item in self._subject.operations)

    def holds(self, lifted: frozenset[str]) -> bool:
        """Whether the policy holds with these lifted."""
        return self.measure(lifted).holds

    def measure(self, lifted: frozenset[str]) -> Candidate:
        """Measure an assignment, or recall it.

        Raises:
            EdgekitError: The engine cannot run the graph, or a tensor cannot be calibrated.
        """
        if leaves_nothing(self._subject.operations, lifted):
            lifted = self.everything
        key = tuple(sorted(lifted))
        known = next((item for item in self.measured if item.lifted == key), None)
        if known is not None:
            return known
        folder = self._place(key)
        candidate = _recalled(folder) or self._made(folder, key)
        self.measured.append(candidate)
        words = f"{len(key)} of {len(self._subject.operations)} lifted, {candidate.outcome}"
        self._observer.advanced("precision: candidates", len(self.measured), None, words)
        return candidate

    def files(self, candidate: Candidate) -> tuple[Path, ...]:
        """Its graph, the same with FP16 types where there is one, and its scale table unless it is the FP32 graph."""
        folder = self._place(candidate.lifted)
        graph = folder / MODEL_NAME
        typed = [path for path in (half_graph_beside(graph),) if path.is_file()]
        return (graph, *typed) if candidate.is_fp32 else (graph, *typed, folder / SCALES_NAME)

    def artifact(self, candidate: Candidate) -> Path:
        """The file that its engine opens."""
        return self._place(candidate.lifted) / ARTIFACT_NAME

    def _place(self, lifted: tuple[str, ...]) -> Path:
        return self._folder / digest_bytes(dump_canonical(list(lifted)))

    def _made(self, folder: Path, lifted: tuple[str, ...]) -> Candidate:
        with atomic_directory(folder) as staging:
            graph_file = staging / MODEL_NAME
            is_fp32 = frozenset(lifted) == self.everything
            typed: dict[str, JsonValue] = {}
            if is_fp32:
                shutil.copyfile(self._subject.path, graph_file)
                int8: tuple[str, ...] = ()
                recalibrated = False
            else:
                table, recalibrated = self._table(lifted)
                model = write_qdq(self._subject.graph, table)
                check_rules(model, number_format(table.number_format), table.provenance.exclude)
                write_bytes(graph_file, serialise(model))
                golden = self._subject.golden
                images = preprocess(golden.pixels[: half_copy.IMAGES], golden.card.input)
                typed = half_copy.write_half_copy(graph_file, number_format(table.number_format), images)
                write_scales(staging / SCALES_NAME, table)
                int8 = _int8_nodes(self._subject.graph, table)
            candidate = self._judged(staging, lifted, int8, is_fp32=is_fp32, recalibrated=recalibrated)
            candidate = replace(candidate, fp16_types=typed.get("fp16_types"))
            write_json(staging / _CANDIDATE_NAME, candidate.to_dict())
        return candidate

    def _table(self, lifted: tuple[str, ...]) -> tuple[ScaleTable, bool]:
        subject = self._subject
        if not lifted:
            return subject.table, False
        exclude = exclude_patterns(subject.table.provenance.exclude, lifted)
        table = lifted_table(subject.graph, subject.table, exclude)
        if table is not None:
            return table, False
        return subject.recalibrate(exclude), True

    def _judged(
        self, folder: Path, lifted: tuple[str, ...], int8: tuple[str, ...], *, is_fp32: bool, recalibrated: bool
    ) -> Candidate:
        golden, engine = self._subject.golden, tuned_engine(self._subject.engine, self._tuning(folder, is_fp32=is_fp32))
        artifact = folder / ARTIFACT_NAME
        engine.build(folder / MODEL_NAME, artifact)
        with engine.open(artifact, EngineOptions()) as runner:
            answers = answer_golden(runner, golden)
        table = score_answers(golden, answers)
        verdict = judge(self._subject.policy.of_scores(), table)
        broken = [item for item in verdict.clauses if item.outcome in ("fail", "inconclusive")]
        return Candidate(
            lifted=lifted,
            is_fp32=is_fp32,
            outcome=verdict.outcome,
            reasons=tuple(f"{item.outcome}: {item.text}: {item.explanation}" for item in broken),
            drift=measured_drift(golden, answers),
            agreement=float(table.agrees.mean()),
            accuracy=top1_accuracy(table),
            bytes=artifact.stat().st_size,
            int8=int8,
            recalibrated=recalibrated,
            model=digest_file(folder / MODEL_NAME),
        )

    def _tuning(self, folder: Path, *, is_fp32: bool) -> Tuning:
        """What is measured is built as the recipe builds what ships."""
        subject = self._subject
        if is_fp32:
            return Tuning("fp32", subject.tensorrt)
        ranges = RangesBeside(subject.path, folder / SCALES_NAME) if subject.tensorrt.on_dla else None
        return Tuning("int8", subject.tensorrt, ranges)


def _recalled(folder: Path) -> Candidate | None:
    """What was measured before a kill, or None where there is nothing whole."""
    path = folder / _CANDIDATE_NAME
    if not path.is_file():
        return None
    try:
        candidate = Candidate.from_dict(read_json(path), where=str(path))
        whole = digest_file(folder / MODEL_NAME) == candidate.model and (folder / ARTIFACT_NAME).is_file()
    except EdgekitError:
        return None
    return candidate if whole else None


def _int8_nodes(graph: ExplainedGraph, table: ScaleTable) -> tuple[str, ...]:
    adjusted = apply_adjustments(graph, table.adjustments)
    placement = place(adjusted, number_format(table.number_format), table.provenance.exclude)
    return tuple(dict.fromkeys(adjusted.nodes[index].name for index in sorted(placement.quantised)))
