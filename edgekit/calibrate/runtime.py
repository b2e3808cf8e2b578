"""ONNX Runtime as calibration uses it: one place that opens a graph and runs it, with our errors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy.typing as npt

from edgekit.errors import BadInputError, UnavailableError

__all__ = ["open_session", "run_session"]


def open_session(model: Any, *, threads: int = 0) -> Any:
    """An `onnxruntime.InferenceSession` of an `onnx.ModelProto` on the CPU.

    Args:
        model: The graph.
        threads: Threads of one operation, 0 for the runtime's choice.

    Raises:
        UnavailableError: ONNX Runtime is not installed.
        BadInputError: It refuses the graph.
    """
    try:
        import onnxruntime as ort
    except ImportError as cause:
        raise UnavailableError(
            "Calibration runs the FP32 graph and needs ONNX Runtime.",
            found=str(cause),
            hint="pip install 'edgekit[host]'",
        ) from cause
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.use_deterministic_compute = True
    options.intra_op_num_threads = threads
    try:
        return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    except Exception as cause:  # onnxruntime raises its own types that share no public base
        raise BadInputError("ONNX Runtime cannot run the graph.", found=str(cause).partition("\n")[0]) from cause


def run_session(session: Any, wanted: Sequence[str], feeds: Mapping[str, npt.NDArray[Any]]) -> dict[str, Any]:
    """The outputs `wanted`, by name. Raises `UnavailableError` where ONNX Runtime fails."""
    try:
        return dict(zip(wanted, session.run(list(wanted), dict(feeds)), strict=True))
    except Exception as cause:  # as above
        raise UnavailableError(
            "ONNX Runtime failed on the calibration images.", found=str(cause).partition("\n")[0]
        ) from cause
