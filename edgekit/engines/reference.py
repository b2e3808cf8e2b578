"""The yardstick: the graph node by node, on one thread, with no optimisation that could hide or cause a difference."""

from __future__ import annotations

from edgekit.engines.onnxruntime_engine import OnnxRuntimeEngine
from edgekit.engines.protocol import Engine

__all__ = ["ENGINE"]

ENGINE: Engine = OnnxRuntimeEngine("reference", optimise=False, threads=1)
