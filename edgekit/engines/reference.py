"""The yardstick: the FP32 graph, node by node, with no optimisation that could hide or cause a difference."""

from __future__ import annotations

from pathlib import Path

from edgekit.engines.onnxruntime_session import SessionSettings, onnxruntime_availability, open_session, store_graph
from edgekit.engines.protocol import Availability, Engine, EngineInfo, EngineOptions, Runner

__all__ = ["ENGINE", "ReferenceEngine"]


class ReferenceEngine:
    """ONNX Runtime with graph optimisation switched off, on one thread unless told otherwise."""

    name = "reference"

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
        return SessionSettings(self.name, optimise=False, threads=options.threads or 1)


ENGINE: Engine = ReferenceEngine()
