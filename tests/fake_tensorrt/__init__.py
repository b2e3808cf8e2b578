"""A strict fake `tensorrt` for each version that devices have: the genuine bindings' names over ONNX Runtime.

Nothing here is TensorRT and nothing here measures anything: a plan of the fake is an ONNX graph with a header, times
are counted. What it is for: code that names what a version lacks, passes a wrong argument, forgets an address or frees
too early fails in a test as it would on a device, or more loudly.
"""

from __future__ import annotations

from fake_cuda.machine import FakeMachine

from fake_tensorrt.api import VERSIONS
from fake_tensorrt.module import make_tensorrt

__all__ = ["VERSIONS", "FakeMachine", "make_tensorrt"]
