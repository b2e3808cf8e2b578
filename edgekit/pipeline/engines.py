"""The stages that need a runtime and no torch: artifacts, verification, latency, for every candidate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from edgekit.core.progress import NULL_OBSERVER, Observer
from edgekit.core.stages import StageRecord
from edgekit.engines.build import BuildEngineRequest, build_engine
from edgekit.engines.protocol import EngineOptions
from edgekit.engines.registry import ENGINES
from edgekit.engines.tensorrt.settings import TensorRtSettings
from edgekit.engines.tuning import RangesBeside, Tuning
from edgekit.errors import BadInputError, UnavailableError
from edgekit.pipeline.candidates import CandidateId, candidates_of
from edgekit.pipeline.engine_files import artifact_path, graph_path, has_half
from edgekit.pipeline.folders import BuildFolders
from edgekit.pipeline.latency import LatencyRequest, latency
from edgekit.policy.policy import Policy
from edgekit.targets.loader import Target
from edgekit.verify.select import AbsentEngine
from edgekit.verify.stage import VerifyRequest, verify

__all__ = ["EngineChoice", "EnginesRequest", "EnginesRun", "engine_for", "engines_for", "run_engines"]


@dataclass(frozen=True)
class EngineChoice:
    """Which of a target's engines compete.

    Attributes:
        engines: Registry names of those that run here, the preferred first; at least one.
        absent: Those that do not; empty where the user named one.
    """

    engines: tuple[str, ...]
    absent: tuple[AbsentEngine, ...] = ()


@dataclass(frozen=True)
class EnginesRequest:
    """What is built, verified and timed.

    Attributes:
        folders: Where exported and quantised graph and the golden set lie.
        target: What is built for.
        choice: The engines that compete.
        policy: What is demanded.
        latency_runs: Timed runs of each candidate.
        options: How engines run.
        controls: Whether controls are verified beside them.
        tensorrt: How TensorRT builds.
    """

    folders: BuildFolders
    target: Target
    choice: EngineChoice
    policy: Policy
    latency_runs: int
    options: EngineOptions = field(default_factory=EngineOptions)
    controls: bool = True
    tensorrt: TensorRtSettings = field(default_factory=TensorRtSettings)


@dataclass(frozen=True)
class EnginesRun:
    """What came of it.

    Attributes:
        records: What each stage did, by name.
        candidates: Those that were built, verified and timed, the preferred first.
        absent: Engines that were not there, or could not be built for this graph.
    """

    records: dict[str, StageRecord]
    candidates: tuple[CandidateId, ...]
    absent: tuple[AbsentEngine, ...]


def engines_for(target: Target, named: str | None = None) -> EngineChoice:
    """The engines of a target that run here.

    Args:
        target: The target.
        named: The one that the user wants; None for all.

    Raises:
        BadInputError: The target has no engine of that name.
        UnavailableError: None of them runs here, or not the one that was named; the message says why not.
    """
    if named is not None and named not in target.engines:
        raise BadInputError(
            f"The target {target.name!r} does not run on the engine {named!r}.",
            expected="one of " + ", ".join(target.engines),
            found=named,
            hint="run 'edgekit targets' to see which engines a target has",
        )
    here, absent = [], []
    for name in target.engines if named is None else (named,):
        if name not in ENGINES:
            absent.append(AbsentEngine(name, "no engine of this version"))
            continue
        availability = ENGINES.load(name).availability()
        if availability.available:
            here.append(name)
        else:
            absent.append(AbsentEngine(name, availability.reason, availability.hint))
    if not here:
        raise UnavailableError(
            f"No engine for the target {target.name!r} runs here."
            if named is None
            else f"The engine {named!r} does not run here.",
            found="; ".join(f"{item.engine}: {item.reason}" for item in absent),
            hint=absent[0].hint
            if named is not None and absent[0].hint
            else "run 'edgekit doctor' to see the command that installs one",
        )
    return EngineChoice(tuple(here), tuple(absent))


def engine_for(target: Target) -> str:
    """The preferred engine of a target that runs here. Raises as `engines_for`."""
    return engines_for(target).engines[0]


def run_engines(request: EnginesRequest, observer: Observer = NULL_OBSERVER) -> EnginesRun:
    """Build, verify and time every candidate; what is unchanged is not done again.

    An engine beside the preferred one that cannot be built for this graph is told of and left out: it was to make the
    build faster, and is no reason to have none.

    Raises:
        EdgekitError: As the stages.
    """
    folders = request.folders
    records: dict[str, StageRecord] = {}
    candidates: list[CandidateId] = []
    absent = list(request.choice.absent)
    for engine in request.choice.engines:
        wanted = candidates_of(request.target, (engine,), half=has_half(folders))
        try:
            built = {f"build-{item.name}": _build(item, request, observer) for item in wanted}
        except (BadInputError, UnavailableError) as cause:
            if engine == request.choice.engines[0]:
                raise
            absent.append(AbsentEngine(engine, f"cannot be built here for this graph: {cause.found or cause.message}"))
            observer.noted(f"The engine {engine!r} is left out: {absent[-1].reason}")
            continue
        records |= built
        candidates += wanted
    for item in candidates:
        artifact = artifact_path(folders, item.engine, item.name)
        records[f"verify-{item.name}"] = verify(
            VerifyRequest(
                engine=item.engine,
                artifact=artifact,
                golden=folders.golden,
                policy=request.policy,
                options=request.options,
                candidate=item.name,
                controls=request.controls,
            ),
            folders.verify(item.name),
            observer,
        )
    records["latency"] = _timed(request, candidates, observer)
    return EnginesRun(records, tuple(candidates), tuple(absent))


def _build(candidate: CandidateId, request: EnginesRequest, observer: Observer) -> StageRecord:
    folders, precision = request.folders, candidate.precision
    ranges = None
    if precision == "int8" and request.tensorrt.on_dla:
        ranges = RangesBeside(graph_path(folders, "fp32"), folders.final_calibrate / "scales.json")
    wanted = BuildEngineRequest(
        candidate.engine,
        graph_path(folders, precision),
        candidate.name,
        Tuning(precision, request.tensorrt, ranges),
    )
    return build_engine(wanted, folders.engine(candidate.name), observer)


def _timed(request: EnginesRequest, candidates: Sequence[CandidateId], observer: Observer) -> StageRecord:
    folders = request.folders
    return latency(
        LatencyRequest(
            candidates=tuple(candidates),
            artifacts={item.name: artifact_path(folders, item.engine, item.name) for item in candidates},
            golden=folders.golden,
            options=request.options,
            runs=request.latency_runs,
            policy=request.policy,
        ),
        folders.latency,
        observer,
    )
