"""The shipped CPU engine: ONNX Runtime with every optimisation on.

The artifact is the ONNX file itself: what ONNX Runtime makes of it while loading depends on the processor, and a
graph optimised here must not be taken for one that is right there.
"""

from __future__ import annotations

from pathlib import Path

from edgekit.engines.onnxruntime_session import SessionSettings, onnxruntime_availability, open_session, store_graph
from edgekit.engines.protocol import Availability, Engine, EngineInfo, EngineOptions, Runner

__all__ = ["ENGINE", "OrtCpuEngine"]


class OrtCpuEngine:
    """ONNX Runtime's CPU execution provider."""

    name = "ort-cpu"

    def availability(self) -> Availability:
        """Whether onnxruntime is installed."""
        return onnxruntime_availability()

    def build(self, graph: Path, artifact: Path) -> EngineInfo:
        """Store the graph as the artifact, after opening it once."""
        return store_graph(graph, artifact, self._settings(EngineOptions()))

    def open(self, artifact: Path, options: EngineOptions) -> Runner:
        """Open an artifact."""
        return open_session(artifact, self._settings(options))

    def _settings(self, options: EngineOptions) -> SessionSettings:
        return SessionSettings(self.name, optimise=True, threads=options.threads)


ENGINE: Engine = OrtCpuEngine()
