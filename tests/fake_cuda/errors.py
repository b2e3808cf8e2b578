"""The one exception of the fake driver; pycuda's and cuda-python's ways of telling it are made from its code."""

from __future__ import annotations

__all__ = ["CODES", "CudaFault"]

# The codes that the fake can answer with, by the names of cudaError_t. The driver's CUresult uses the same numbers
# for all of these but the second and the fifth, which no driver call of the fake answers with.
CODES = {
    "cudaSuccess": 0,
    "cudaErrorInvalidValue": 1,
    "cudaErrorMemoryAllocation": 2,
    "cudaErrorInitializationError": 3,
    "cudaErrorInsufficientDriver": 35,
    "cudaErrorNoDevice": 100,
    "cudaErrorInvalidDevice": 101,
    "cudaErrorDeviceUninitialized": 201,
    "cudaErrorInvalidResourceHandle": 400,
    "cudaErrorNotReady": 600,
    "cudaErrorIllegalAddress": 700,
    "cudaErrorLaunchFailure": 719,
    "cudaErrorStreamCaptureUnsupported": 900,
    "cudaErrorStreamCaptureInvalidated": 901,
    "cudaErrorStreamCaptureUnmatched": 903,
    "cudaErrorIllegalState": 401,
}

# After these the real driver refuses everything in the context until the process ends.
STICKY = frozenset({"cudaErrorIllegalAddress", "cudaErrorLaunchFailure"})


class CudaFault(Exception):  # noqa: N818 - it is no error of ours: it stands for a code that the driver returns
    """A call that the driver refuses.

    Attributes:
        name: Key of `CODES`.
        code: Its number.
        sticky: The context is lost.
    """

    def __init__(self, name: str, message: str) -> None:
        super().__init__(f"{name}: {message}")
        self.name = name
        self.code = CODES[name]
        self.sticky = name in STICKY
        self.message = message
