"""OpenVINO on this processor: a second CPU engine for the very graph that ONNX Runtime runs.

The artifact is the ONNX file itself, as of `ort-cpu`: what OpenVINO makes of it while compiling depends on the
processor, and a blob compiled here must not be taken for one that is right there.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edgekit.core.progress import NULL_OBSERVER, Observer
from edgekit.engines.onnx_artifact import opened_info, store_graph
from edgekit.engines.openvino_session import open_graph, openvino_availability
from edgekit.engines.protocol import Availability, Engine, EngineInfo, EngineOptions, Runner

__all__ = ["ENGINE", "OpenVinoEngine"]


@dataclass(frozen=True)
class OpenVinoEngine:
    """The engine.

    Attributes:
        name: Registry name.
    """

    name: str = "openvino"

    def availability(self) -> Availability:
        """Whether openvino is installed, with its CPU plugin."""
        return openvino_availability()

    def build(self, graph: Path, artifact: Path, observer: Observer = NULL_OBSERVER) -> EngineInfo:  # noqa: ARG002
        """Store the graph as the artifact, after compiling it once."""
        return store_graph(self.name, graph, artifact, lambda path: opened_info(self.open(path, EngineOptions())))

    def open(self, artifact: Path, options: EngineOptions) -> Runner:
        """Compile an artifact."""
        return open_graph(artifact, self.name, options)


ENGINE: Engine = OpenVinoEngine()
