"""Write what of `cuda.bindings.runtime` edgekit may use as JSON: names of parameters, numbers of enum members.

    python dump.py 13.5.0.json

Run where cuda-bindings is installed; neither driver nor device is needed. Nothing is copied but names and numbers.
"""

from __future__ import annotations

import importlib
import inspect
import json
import sys
from pathlib import Path
from typing import Any

__all__ = ["CONSTANTS", "ENUMS", "FUNCTIONS", "dumped"]

FUNCTIONS = (
    "cudaDeviceGetAttribute",
    "cudaDeviceSynchronize",
    "cudaDriverGetVersion",
    "cudaEventCreate",
    "cudaEventCreateWithFlags",
    "cudaEventDestroy",
    "cudaEventElapsedTime",
    "cudaEventQuery",
    "cudaEventRecord",
    "cudaEventSynchronize",
    "cudaFree",
    "cudaFreeHost",
    "cudaGetDevice",
    "cudaGetDeviceCount",
    "cudaGetDeviceProperties",
    "cudaGetErrorName",
    "cudaGetErrorString",
    "cudaGetLastError",
    "cudaGraphDestroy",
    "cudaGraphExecDestroy",
    "cudaGraphInstantiate",
    "cudaGraphLaunch",
    "cudaHostAlloc",
    "cudaHostGetDevicePointer",
    "cudaMalloc",
    "cudaMallocHost",
    "cudaMallocManaged",
    "cudaMemGetInfo",
    "cudaMemcpy",
    "cudaMemcpyAsync",
    "cudaMemset",
    "cudaMemsetAsync",
    "cudaPeekAtLastError",
    "cudaRuntimeGetVersion",
    "cudaSetDevice",
    "cudaStreamBeginCapture",
    "cudaStreamCreate",
    "cudaStreamCreateWithFlags",
    "cudaStreamDestroy",
    "cudaStreamEndCapture",
    "cudaStreamIsCapturing",
    "cudaStreamQuery",
    "cudaStreamSynchronize",
    "cudaStreamWaitEvent",
)
ENUMS = ("cudaDeviceAttr", "cudaError_t", "cudaMemcpyKind", "cudaStreamCaptureMode", "cudaStreamCaptureStatus")
CONSTANTS = (
    "cudaEventBlockingSync",
    "cudaEventDefault",
    "cudaEventDisableTiming",
    "cudaHostAllocDefault",
    "cudaHostAllocMapped",
    "cudaHostAllocPortable",
    "cudaHostAllocWriteCombined",
    "cudaMemAttachGlobal",
    "cudaStreamDefault",
    "cudaStreamNonBlocking",
)
HANDLES = ("cudaEvent_t", "cudaGraphExec_t", "cudaGraph_t", "cudaStream_t")


def dumped(runtime: Any, version: str) -> dict[str, Any]:
    """The kept part of the module."""
    return {
        "about": {"package": f"cuda-bindings=={version}"},
        "functions": {name: list(inspect.signature(getattr(runtime, name)).parameters) for name in FUNCTIONS},
        "enums": {name: {member.name: int(member) for member in getattr(runtime, name)} for name in ENUMS},
        "constants": {name: int(getattr(runtime, name)) for name in CONSTANTS},
        "handles": [name for name in HANDLES if hasattr(runtime, name)],
        "properties": [name for name in dir(runtime.cudaDeviceProp()) if not name.startswith("_")],
    }


if __name__ == "__main__":
    target = Path(sys.argv[1])
    found = dumped(importlib.import_module("cuda.bindings.runtime"), target.stem)
    target.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n", encoding="utf-8")
