"""The same graph with FP16 types: where it lies, and how it says which graph it stands for.

Written on the host (`edgekit.half`), read by engines that compute in the types of a graph.
"""

from __future__ import annotations

from pathlib import Path

__all__ = ["FLOAT16_NAME", "SOURCE_KEY", "half_graph_beside"]

FLOAT16_NAME = "float16.onnx"
"""The FP32 graph with FP16 types, which the FP16 candidate is built from. It lies beside the Q/DQ graph and not beside
the FP32 graph: an engine that is called FP32 must not find it."""

SOURCE_KEY = "edgekit.half_of"
"""Key of the SHA-256 of the FP32-typed graph's file, in the metadata of the FP16-typed one."""


def half_graph_beside(graph: Path) -> Path:
    """Where the FP16-typed graph of `graph` lies, if there is one: "model.fp16.onnx" beside "model.onnx"."""
    return graph.with_name(f"{graph.stem}.fp16.onnx")
