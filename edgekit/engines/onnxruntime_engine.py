"""Engines on ONNX Runtime's CPU execution provider, told apart by their settings."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edgekit.core.progress import NULL_OBSERVER, Observer
from edgekit.engines.onnx_artifact import opened_info, store_graph
from edgekit.engines.onnxruntime_session import SessionSettings, onnxruntime_availability, open_session
from edgekit.engines.protocol import Availability, EngineInfo, EngineOptions, Runner

__all__ = ["OnnxRuntimeEngine"]


@dataclass(frozen=True)
class OnnxRuntimeEngine:
    """An engine whose artifact is the explained ONNX graph.

    Attributes:
        name: Registry name.
        optimise: False switches every graph optimisation off.
        threads: Intra-operator threads unless the options say otherwise, 0 for the runtime's choice.
    """

    name: str
    optimise: bool
    threads: int = 0

    def availability(self) -> Availability:
        """Whether onnxruntime is installed."""
        return onnxruntime_availability()

    def build(self, graph: Path, artifact: Path, observer: Observer = NULL_OBSERVER) -> EngineInfo:  # noqa: ARG002
        """Store the graph as the artifact, after opening it once."""
        return store_graph(self.name, graph, artifact, lambda path: opened_info(self.open(path, EngineOptions())))

    def open(self, artifact: Path, options: EngineOptions) -> Runner:
        """Open an artifact."""
        return open_session(artifact, self._settings(options))

    def _settings(self, options: EngineOptions) -> SessionSettings:
        return SessionSettings(self.name, optimise=self.optimise, threads=options.threads or self.threads)
