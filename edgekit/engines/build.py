"""The build stage: turn an explained graph into the artifact that one engine ships."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgekit.core.canonical import JsonValue
from edgekit.core.environment import environment_print
from edgekit.core.progress import NULL_OBSERVER, Observer
from edgekit.core.stages import Stage, StageRecord, run_stage
from edgekit.engines.half_graph import half_graph_beside
from edgekit.engines.protocol import Engine
from edgekit.engines.registry import ENGINES
from edgekit.engines.tuning import ConditionedEngine, TunableEngine, Tuning, conditions_of, tuned_engine

__all__ = ["ARTIFACT_NAME", "PLAN_ENGINES", "BuildEngineRequest", "artifact_name", "build_engine"]

ARTIFACT_NAME = "model.onnx"
_PLAN_NAME = "model.plan"

PLAN_ENGINES = ("tensorrt",)
"""Registry names of the engines whose artifact is no ONNX file."""

# 2: artifacts that are no ONNX are no longer called so.
_VERSION = 2


def artifact_name(engine: str) -> str:
    """What the artifact of an engine is called in its stage's folder: ONNX by that ending, and nothing else by it.

    Args:
        engine: Registry name.
    """
    return _PLAN_NAME if engine in PLAN_ENGINES else ARTIFACT_NAME


@dataclass(frozen=True)
class BuildEngineRequest:
    """What is built.

    Attributes:
        engine: Registry name of the engine.
        graph: The explained graph, FP32, FP16-typed or Q/DQ.
        candidate: Name of the candidate, such as "int8", for people.
        tuning: How engines that compile build it; None for their own defaults.
    """

    engine: str
    graph: Path
    candidate: str
    tuning: Tuning | None = None


def build_engine(request: BuildEngineRequest, destination: Path, observer: Observer = NULL_OBSERVER) -> StageRecord:
    """Build the artifact into `destination` and open it once, so that what cannot run is found here.

    Raises:
        BadInputError: The graph cannot be built for this engine.
        UnavailableError: The engine's runtime is not here.
    """
    engine = tuned_engine(request.engine, request.tuning)
    options: dict[str, JsonValue] = {
        "engine": request.engine,
        "candidate": request.candidate,
        "environment": environment_print(),
        **_told(request),
    }
    stage = Stage(f"build-{request.candidate}", _VERSION, options, _files(request))

    def body(folder: Path) -> Mapping[str, Any]:
        artifact = folder / artifact_name(request.engine)
        info = engine.build(request.graph, artifact, observer)
        size = artifact.stat().st_size
        return {
            "engine": info.to_dict(),
            "bytes": size,
            "summary": f"{request.candidate} for {info.engine} ({info.runtime}), {size / 1024:.0f} KiB",
        }

    return run_stage(stage, destination, body, observer)


def _told(request: BuildEngineRequest) -> dict[str, JsonValue]:
    """What the artifact depends on beside its graph."""
    engine: Engine = ENGINES.load(request.engine)
    told: dict[str, JsonValue] = {}
    if isinstance(engine, ConditionedEngine):
        told["conditions"] = conditions_of(request.engine)
    if request.tuning is not None and isinstance(engine, TunableEngine):
        told["tuning"] = request.tuning.to_dict()
    return told


def _files(request: BuildEngineRequest) -> dict[str, Path]:
    files = {"graph": request.graph}
    # Some engines build the one with FP16 types in its place.
    typed = half_graph_beside(request.graph)
    if typed.is_file():
        files["graph_fp16"] = typed
    ranges = request.tuning.ranges if request.tuning is not None else None
    if ranges is not None:
        files |= {"graph_fp32": ranges.graph, "scales": ranges.scales}
    return files
