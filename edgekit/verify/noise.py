"""Measuring the noise floor of a bundle's maps: how far they move when nothing that matters is different.

The same graph is run again, with other batch sizes and numbers of threads, and on every other engine that is installed
here; the FP32 graph beside the one that ships. Every run is compared with the teacher's stored answers and with the
graph's own first run. Only what no compression causes is a floor:

- the FP32 graph beside its own first run, always;
- the FP32 graph beside the teacher, where it is the teacher's own network: not where that was pruned, distilled,
  trained or quantised, of which the map would tell as well;
- nothing of a quantised graph, not even beside itself: a last bit that rounds to another step is quantisation's doing.

Everything is run here and now; an engine that is not installed, or cannot open the graph, is named with the reason.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgekit.bundle.golden import GoldenSet
from edgekit.bundle.layout import LINEAGE, MODEL
from edgekit.bundle.open import Bundle
from edgekit.core.progress import NULL_OBSERVER, Observer
from edgekit.engines.build import PLAN_ENGINES
from edgekit.engines.protocol import EngineOptions, Runner
from edgekit.engines.registry import ENGINES
from edgekit.errors import BadInputError, EdgekitError, UnavailableError
from edgekit.interface.preprocess import preprocess
from edgekit.metrics.scores import ScoreTable
from edgekit.policy.floors import Against, Measurement, Role, Source
from edgekit.verify.noise_tables import Answers, as_yardstick, compared, control_measurements

__all__ = ["AbsentBackend", "NoiseOptions", "NoiseReport", "answers_by", "measure_noise", "teachers_own"]


# What a recipe may say of compression. A step that is not among these is one whose absence nobody here could tell.
_STEPS = {"prune", "finetune", "matching", "distil", "sparsify"}


@dataclass(frozen=True)
class NoiseOptions:
    """What is tried.

    Attributes:
        runs: How often each graph is opened and run without any difference, at least 2.
        engine: Registry name of the engine; empty for the bundle's.
        batches: Images asked at once, beside `batch`. A graph of a fixed batch is run as often as that takes.
        threads: Numbers of threads, beside the runtime's choice.
        batch: Images asked at once wherever the batch is not what differs.
    """

    runs: int = 3
    engine: str = ""
    batches: tuple[int, ...] = (1, 5, 64)
    threads: tuple[int, ...] = (1, 2)
    batch: int = 16

    def __post_init__(self) -> None:
        if self.runs < 2:
            raise BadInputError(
                "One run says nothing of noise.", expected="at least 2 runs", found=str(self.runs), hint="--runs 3"
            )


@dataclass(frozen=True)
class AbsentBackend:
    """An engine on which a graph was not run, and why."""

    engine: str
    graph: str
    reason: str


@dataclass(frozen=True)
class NoiseReport:
    """What was measured.

    Attributes:
        engine: On which engine the graphs were run, except where a measurement says otherwise.
        runtimes: Runtime and device of every engine that ran.
        teachers_own: Whether the bundle's FP32 network is the teacher's own.
        grids: Height and width of the maps, of each that a sample has.
        measurements: In the order in which they were made; controls last.
        absent: Engines that did not run.
    """

    engine: str
    runtimes: dict[str, str]
    teachers_own: bool
    grids: tuple[tuple[int, int], ...]
    measurements: tuple[Measurement, ...]
    absent: tuple[AbsentBackend, ...]

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        return {
            "engine": self.engine,
            "runtimes": dict(self.runtimes),
            "teachers_own_network": self.teachers_own,
            "grids": [list(grid) for grid in self.grids],
            "measurements": [each.to_dict() for each in self.measurements],
            "absent": [vars(each).copy() for each in self.absent],
        }


@dataclass(frozen=True)
class _Graph:
    """One graph of the bundle: `artifact` for the engine that is measured, `onnx` for the others."""

    name: str
    artifact: Path
    onnx: Path
    is_float: bool


@dataclass(frozen=True)
class _Run:
    varied: str
    source: Source
    engine: str
    options: EngineOptions
    batch: int


def measure_noise(bundle: Bundle, options: NoiseOptions, observer: Observer = NULL_OBSERVER) -> NoiseReport:
    """Run a bundle's graphs over its golden set in every way that should not matter.

    Args:
        bundle: Opened.
        options: What is tried.
        observer: Told of the progress.

    Raises:
        BadInputError: There is no such engine, or the first run answers with values that are not finite.
        EvidenceNeededError: The bundle's engine is yet to be built by its device, and no other was named.
        IntegrityError: An artifact is none of the engine's, or does not fit the golden set.
        UnavailableError: The engine is not here.
    """
    golden, engine = bundle.golden(), options.engine or bundle.manifest.engine
    here, graphs = ENGINES.load(engine).availability(), _graphs(bundle, engine)
    if not here.available:
        raise UnavailableError(
            f"The engine {engine!r} cannot run here, so its noise cannot be measured.",
            expected="one of those that 'edgekit doctor' finds",
            found=here.reason,
            hint=here.hint + ("" if options.engine else "; or name another with --engine"),
        )
    own = teachers_own(bundle)
    bench = _Bench(golden, engine, options, own, observer)
    for graph in graphs:
        bench.measure(graph)
    assert bench.yardstick is not None
    measured = (*bench.measurements, *control_measurements(golden, bench.yardstick))
    grids = tuple((view.spec.height, view.spec.width) for view in golden.map_spec.views)
    return NoiseReport(engine, bench.runtimes, own, grids, measured, tuple(bench.absent))


def teachers_own(bundle: Bundle) -> bool:
    """Whether the network in a bundle is its teacher's own, as far as its lineage tells; False where it does not.

    Pruning, another student, sparsity, and any training make it another network, and so does training for INT8.
    """
    lineage = bundle.read_json(LINEAGE)
    try:
        steps = lineage["compress"]["options"]["compress"]
        if not set(steps) <= _STEPS:
            return False
        changed = (
            steps["prune"]["rate"],
            steps["finetune"]["epochs"],
            # Older bundles know neither.
            steps.get("distil", {}).get("student", ""),
            steps.get("sparsify", {}).get("sparsity", 0),
        )
    except (KeyError, TypeError, AttributeError):
        return False
    return not any(changed) and "qat" not in lineage


def _graphs(bundle: Bundle, engine: str) -> tuple[_Graph, ...]:
    """The FP32 graph first: its first run is what controls are made of."""
    manifest = bundle.manifest
    shipped, reference = bundle.path(MODEL), bundle.reference_path
    own = engine == manifest.engine
    at_hand = (bundle.model_path, bundle.partner_path) if own else (shipped, reference)
    float_graph = _Graph("fp32", at_hand[1], reference, is_float=True)
    if manifest.precision == "fp32":
        return (_Graph("fp32", at_hand[0], shipped, is_float=True),)
    return (float_graph, _Graph(manifest.precision, at_hand[0], shipped, is_float=False))


class _Bench:
    """Runs graphs and keeps what comes of it; of the answers themselves only those of the first run."""

    def __init__(self, golden: GoldenSet, engine: str, options: NoiseOptions, own: bool, observer: Observer) -> None:
        self._golden = golden
        self._engine = engine
        self._options = options
        self._own = own
        self._observer = observer
        self.measurements: list[Measurement] = []
        self.absent: list[AbsentBackend] = []
        self.runtimes: dict[str, str] = {}
        self.yardstick: Answers | None = None

    def measure(self, graph: _Graph) -> None:
        runs = list(self._runs())
        first: Answers | None = None
        for done, run in enumerate(runs):
            self._observer.advanced(f"runs of {graph.name}", done, len(runs), run.varied or run.engine)
            answers = self._answers(graph, run)
            if answers is None:
                continue
            if first is None:
                first = as_yardstick(answers, f"{graph.name} on {run.engine}")
                self.yardstick = self.yardstick or first
            else:
                role: Role = "floor" if graph.is_float else "reached"
                self._keep(graph, run, "first-run", role, compared(self._golden, answers, first))
            role = "floor" if graph.is_float and self._own else "reached"
            self._keep(graph, run, "teacher", role, compared(self._golden, answers))
        self._observer.advanced(f"runs of {graph.name}", len(runs), len(runs))

    def _keep(self, graph: _Graph, run: _Run, against: Against, role: Role, table: ScoreTable) -> None:
        self.measurements.append(Measurement(graph.name, run.engine, run.varied, run.source, against, role, table))

    def _runs(self) -> Iterator[_Run]:
        options, plain = self._options, EngineOptions()
        yield _Run("first run", "first", self._engine, plain, options.batch)
        for number in range(2, options.runs + 1):
            yield _Run(f"run {number}", "repeat", self._engine, plain, options.batch)
        for batch in options.batches:
            yield _Run(f"{batch} at a time", "batch", self._engine, plain, batch)
        for threads in options.threads:
            words = f"{threads} thread" + ("s" if threads > 1 else "")
            yield _Run(words, "threads", self._engine, EngineOptions(threads=threads), options.batch)
        for other in ENGINES:
            if other != self._engine:
                yield _Run("", "backend", other, plain, options.batch)

    def _answers(self, graph: _Graph, run: _Run) -> Answers | None:
        """The answers of one run; None where another engine cannot give them, which is written down."""
        if run.source != "backend":
            return self._opened(graph.artifact, run)
        engine = ENGINES.load(run.engine)
        here = engine.availability()
        reason = "" if here.available else here.reason
        if here.available and run.engine in PLAN_ENGINES:
            reason = "it does not run ONNX: its plan would have to be built first"
        if not reason:
            try:
                return self._opened(graph.onnx, run)
            except EdgekitError as cause:
                reason = f"{cause.message} {cause.found or ''}".strip()
        self.absent.append(AbsentBackend(run.engine, graph.name, reason))
        return None

    def _opened(self, artifact: Path, run: _Run) -> Answers:
        with ENGINES.load(run.engine).open(artifact, run.options) as runner:
            answers = answers_by(runner, self._golden, run.batch)
            self.runtimes[run.engine] = f"{runner.info.runtime} on {runner.info.device}"
        return answers


def answers_by(runner: Runner, golden: GoldenSet, batch: int) -> Answers:
    """An engine's answers to a golden set, so many images at a time: logits, and maps of the teacher's classes.

    Raises:
        IntegrityError: The engine's outputs have other shapes than the teacher's.
    """
    wanted = golden.explained_classes
    logits: list[npt.NDArray[np.float32]] = []
    maps: list[tuple[npt.NDArray[np.float32], ...]] = []
    for start in range(0, len(golden), batch):
        part = wanted[start : start + batch]
        images = preprocess(golden.pixels[start : start + batch], golden.card.input)
        output = runner.run(images, part[:, 0] if part.shape[1] == 1 else part)
        logits.append(output.logits)
        maps.append((output.attribution, *output.further))
    return Answers.fitting(golden, np.concatenate(logits), tuple(map(np.concatenate, zip(*maps, strict=True))))
