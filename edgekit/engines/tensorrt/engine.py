"""TensorRT behind the protocol of engines. Its artifact is a plan, which runs on the kind of device it was built on."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

from edgekit.core.canonical import JsonValue
from edgekit.core.progress import NULL_OBSERVER, Observer
from edgekit.engines.half_graph import half_graph_beside
from edgekit.engines.protocol import Availability, EngineInfo, EngineOptions, Runner
from edgekit.engines.tensorrt.binding import INSTALL_HINT, load_tensorrt
from edgekit.engines.tensorrt.limited_build import build_within_limit
from edgekit.engines.tensorrt.machine import machine_facts
from edgekit.engines.tensorrt.options import BuildOptions
from edgekit.engines.tensorrt.probe import DeviceProbe, probe_device
from edgekit.engines.tensorrt.run import open_plan
from edgekit.engines.tensorrt.status import NEVER_RUN
from edgekit.engines.tensorrt.timing_cache import cache_folder
from edgekit.engines.tuning import RangesBeside, Tuning

__all__ = ["ENGINE", "TensorRtEngine"]

_OF_THE_GPU = ("name", "capability", "multiprocessors", "driver")


@dataclass(frozen=True)
class TensorRtEngine:
    """The engine. What this class does has never run on a real TensorRT, see `status`.

    Attributes:
        name: Registry name.
        build_options: How plans are built; timing caches are kept for the user unless they say otherwise.
        ranges: What is built in place of a Q/DQ graph where the DLA takes no Q/DQ; None for nothing.
    """

    name: str = "tensorrt"
    build_options: BuildOptions | None = None
    ranges: RangesBeside | None = None

    def availability(self) -> Availability:
        """Whether TensorRT and a GPU are here. The first call starts a process that looks; its answer is kept."""
        if not _is_installed():
            return Availability(False, "tensorrt is not installed", INSTALL_HINT)
        found = _probe()
        if found.problem:
            return Availability(False, found.problem, found.hint)
        return Availability(True, note=NEVER_RUN)

    def build(self, graph: Path, artifact: Path, observer: Observer = NULL_OBSERVER) -> EngineInfo:
        """Build a plan for this device; where networks are strongly typed, from the FP16-typed graph beside `graph`."""
        options = self.build_options or BuildOptions(timing_cache=cache_folder())
        beside = half_graph_beside(graph)
        if self.ranges is not None and options.dla_core is not None and load_tensorrt().dla_by_cache:
            graph, options = self.ranges.graph, replace(options, scales=self.ranges.scales)
        elif options.half_graph is None and beside.is_file():
            options = replace(options, half_graph=beside)
        header = build_within_limit(graph, artifact, options, observer)
        sm = f"{header.capability[0]}.{header.capability[1]}"
        return EngineInfo(
            engine=self.name,
            runtime=f"TensorRT {header.tensorrt}",
            device=f"{header.device} (SM {sm})",
            details={"notice": NEVER_RUN, "plan": header.to_dict()},
        )

    def tuned(self, tuning: Tuning) -> TensorRtEngine:
        """The engine that builds as a recipe says."""
        options = tuning.tensorrt.build_options(tuning.precision)
        if tuning.tensorrt.timing_cache:
            options = replace(options, timing_cache=cache_folder())
        return replace(self, build_options=options, ranges=tuning.ranges)

    def conditions(self) -> Mapping[str, JsonValue]:
        """TensorRT and GPU as the driver tells of them, and a Jetson's release, module and power mode."""
        if not _is_installed():
            return {}
        found = _probe()
        gpu = {key: found.gpu[key] for key in _OF_THE_GPU if key in found.gpu} if found.gpu else {}
        return {"tensorrt": found.tensorrt, "gpu": gpu, "machine": machine_facts().to_dict()}

    def open(self, artifact: Path, options: EngineOptions) -> Runner:
        """Open a plan, which runs as its header says. Threads of the host make no difference to it."""
        del options
        return open_plan(artifact)


def _is_installed() -> bool:
    if "tensorrt" in sys.modules:
        return True
    try:
        return find_spec("tensorrt") is not None
    except (ImportError, ValueError):
        return False


@lru_cache(maxsize=1)
def _probe() -> DeviceProbe:
    return probe_device()


ENGINE = TensorRtEngine()
