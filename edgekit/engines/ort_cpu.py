"""The shipped CPU engine: ONNX Runtime's CPU execution provider with every optimisation on.

The artifact is the ONNX file itself: what ONNX Runtime makes of it while loading depends on the processor, and a
graph optimised here must not be taken for one that is right there.
"""

from __future__ import annotations

from edgekit.engines.onnxruntime_engine import OnnxRuntimeEngine
from edgekit.engines.protocol import Engine

__all__ = ["ENGINE"]

ENGINE: Engine = OnnxRuntimeEngine("ort-cpu", optimise=True)
