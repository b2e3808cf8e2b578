"""The known engines."""

from __future__ import annotations

from edgekit.core.registry import Registry
from edgekit.engines.protocol import Engine

__all__ = ["ENGINES", "GPU_ENGINES"]

ENGINES: Registry[Engine] = Registry(
    "engine",
    {
        "openvino": "edgekit.engines.openvino_engine:ENGINE",
        "ort-cpu": "edgekit.engines.ort_cpu:ENGINE",
        "ort-cuda": "edgekit.engines.ort_cuda:ENGINE",
        "ort-tensorrt": "edgekit.engines.ort_tensorrt:ENGINE",
        "reference": "edgekit.engines.reference:ENGINE",
        "tensorrt": "edgekit.engines.tensorrt.engine:ENGINE",
    },
)

GPU_ENGINES = frozenset({"ort-cuda", "ort-tensorrt", "tensorrt"})
"""Engines whose work is done on a GPU or beside it: the processor's memory and power are only part of theirs."""
