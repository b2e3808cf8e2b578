"""The stages that need a runtime and no torch: artifacts, verification, latency, for every candidate."""

from __future__ import annotations

from dataclasses import dataclass, field

from edgekit.core.progress import NULL_OBSERVER, Observer
from edgekit.core.stages import StageRecord
from edgekit.engines.build import BuildEngineRequest, build_engine
from edgekit.engines.protocol import EngineOptions
from edgekit.engines.registry import ENGINES
from edgekit.errors import UnavailableError
from edgekit.pipeline.engine_files import artifact_path, graph_path
from edgekit.pipeline.folders import CANDIDATES, BuildFolders
from edgekit.pipeline.latency import LatencyRequest, latency
from edgekit.policy.policy import Policy
from edgekit.targets.loader import Target
from edgekit.verify.stage import VerifyRequest, verify

__all__ = ["EnginesRequest", "engine_for", "run_engines"]


@dataclass(frozen=True)
class EnginesRequest:
    """What is built, verified and timed.

    Attributes:
        folders: Where exported and quantised graph and the golden set lie.
        engine: Registry name of the engine.
        policy: What is demanded.
        latency_runs: Timed runs of each candidate.
        options: How engines run.
    """

    folders: BuildFolders
    engine: str
    policy: Policy
    latency_runs: int
    options: EngineOptions = field(default_factory=EngineOptions)


def engine_for(target: Target) -> str:
    """The preferred engine of a target that runs here.

    Raises:
        UnavailableError: None of them does; the message says why not.
    """
    reasons = []
    for name in target.engines:
        if name not in ENGINES:
            reasons.append(f"{name}: no engine of this version")
            continue
        availability = ENGINES.load(name).availability()
        if availability.available:
            return name
        reasons.append(f"{name}: {availability.reason}")
    raise UnavailableError(
        f"No engine for the target {target.name!r} runs here.",
        found="; ".join(reasons),
        hint="run 'edgekit doctor' to see the command that installs one",
    )


def run_engines(request: EnginesRequest, observer: Observer = NULL_OBSERVER) -> dict[str, StageRecord]:
    """Build, verify and time every candidate; what is unchanged is not done again.

    Raises:
        EdgekitError: As the stages.
    """
    folders = request.folders
    graphs = {name: graph_path(folders, name) for name in CANDIDATES}
    artifacts = {name: artifact_path(folders, request.engine, name) for name in CANDIDATES}
    records = {}
    for name, graph in graphs.items():
        wanted = BuildEngineRequest(request.engine, graph, name)
        records[f"build-{name}"] = build_engine(wanted, folders.engine(name), observer)
    for name, artifact in artifacts.items():
        records[f"verify-{name}"] = verify(
            VerifyRequest(request.engine, artifact, folders.golden, request.policy, request.options, name),
            folders.verify(name),
            observer,
        )
    records["latency"] = latency(
        LatencyRequest(request.engine, artifacts, folders.golden, request.options, request.latency_runs),
        folders.latency,
        observer,
    )
    return records
