"""The work itself: build and verify the plan's engines into a folder. It runs in a process of its own.

TensorRT can hang, and can end its process; whoever watches is `edgekit.device.supervise`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from edgekit.bundle.layout import GOLDEN, SCALES
from edgekit.bundle.open import open_bundle
from edgekit.core.canonical import JsonValue
from edgekit.core.environment import environment_print
from edgekit.core.progress import NULL_OBSERVER, Observer
from edgekit.core.stages import Stage, run_stage
from edgekit.device.candidate import candidate_plan
from edgekit.device.plan import DevicePlan
from edgekit.engines.build import artifact_name
from edgekit.engines.tensorrt.engine import TensorRtEngine
from edgekit.engines.tensorrt.machine import machine_facts
from edgekit.engines.tensorrt.timing_cache import cache_folder
from edgekit.engines.tuning import RangesBeside
from edgekit.errors import UnavailableError
from edgekit.verify.gate import bundle_policy, wants_controls
from edgekit.verify.stage import VerifyRequest, verify

__all__ = ["ENGINE", "build_and_verify", "engine_file", "engine_folder", "verify_folder"]

ENGINE = "tensorrt"
"""Registry name of the engine that plans are for."""

_VERSION = 1


def engine_folder(output: Path, candidate: str) -> Path:
    """Where a candidate's engine goes."""
    return output / f"build-{candidate}"


def engine_file(output: Path, candidate: str) -> Path:
    """The engine."""
    return engine_folder(output, candidate) / artifact_name(ENGINE)


def verify_folder(output: Path, candidate: str) -> Path:
    """Where its scores and answers go."""
    return output / f"verify-{candidate}"


def build_and_verify(bundle: Path, output: Path, observer: Observer = NULL_OBSERVER) -> None:
    """Build every engine of a candidate's plan and run it over the golden set; what is unchanged is not done again.

    Args:
        bundle: The candidate's folder or tar file.
        output: Where the engines and their scores go, one folder a stage.
        observer: Told of the progress.

    Raises:
        BadInputError: A graph cannot be built, or the golden set's batches lie outside the engine's.
        IntegrityError: The bundle or its plan is damaged.
        UnavailableError: TensorRT or CUDA is not here, cannot do it, or lacks memory.
    """
    with open_bundle(bundle) as opened:
        plan, policy = candidate_plan(opened), bundle_policy(opened)
        for name, build in plan.builds.items():
            graphs = {"graph": opened.path(build.graph)}
            if build.typed:
                graphs["graph_fp16"] = opened.path(build.typed)
            if build.unrounded:
                graphs |= {"graph_fp32": opened.path(build.unrounded), "scales": opened.path(SCALES)}
            _build(plan, name, graphs, output, observer)
        for name in plan.builds:
            request = VerifyRequest(
                engine=ENGINE,
                artifact=engine_file(output, name),
                golden=opened.folder / GOLDEN,
                policy=policy,
                candidate=name,
                controls=wants_controls(opened) is not False,
            )
            verify(request, verify_folder(output, name), observer)


def _build(plan: DevicePlan, name: str, graphs: Mapping[str, Path], output: Path, observer: Observer) -> None:
    options: dict[str, JsonValue] = {
        "plan": plan.digest,
        "engine": ENGINE,
        "candidate": name,
        "environment": environment_print(),
        # An engine of another power mode or release is another engine.
        "machine": machine_facts().to_dict(),
    }
    stage = Stage(f"build-{name}", _VERSION, options, graphs)
    wanted = replace(plan.builds[name].options, timing_cache=cache_folder(), half_graph=graphs.get("graph_fp16"))
    ranges = RangesBeside(graphs["graph_fp32"], graphs["scales"]) if "scales" in graphs else None
    engine = TensorRtEngine(build_options=wanted, ranges=ranges)

    def body(folder: Path) -> Mapping[str, Any]:
        artifact = folder / artifact_name(ENGINE)
        info = engine.build(graphs["graph"], artifact, observer)
        size = artifact.stat().st_size
        if size > plan.limits.largest_engine:
            raise UnavailableError(
                "The engine is larger than its plan allows.",
                expected=f"at most {plan.limits.largest_engine} bytes",
                found=f"{size} bytes",
                hint="allow fewer images a batch, or a smaller workspace, and make the candidate again",
            )
        return {
            "engine": info.to_dict(),
            "bytes": size,
            "summary": f"{name} for {info.engine} ({info.runtime}), {size / 1024:.0f} KiB",
        }

    run_stage(stage, engine_folder(output, name), body, observer)
