"""TensorRT where there is none: which stand-ins tests run over, and small graphs to build with them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from fake_cuda.machine import FakeMachine
from fake_tensorrt import VERSIONS
from fake_tensorrt.install import installed
from fake_tensorrt.plan import unpack

from edgekit.core.progress import NullObserver
from edgekit.engines.tensorrt.build import build_plan
from edgekit.engines.tensorrt.options import BuildOptions
from edgekit.engines.tensorrt.plan_file import PlanHeader, read_plan
from edgekit.engines.tensorrt.probe import look

__all__ = [
    "GRAPH",
    "INTERFACES",
    "PAIRS",
    "Listener",
    "build",
    "images",
    "own_classes",
    "quantised",
    "quantised_graph",
    "stand_in",
]

GRAPH = Path(__file__).resolve().parent / "assets" / "tiny_explained.onnx"
INTERFACES = ("pycuda", "cuda-python-12.6", "cuda-python-13")
PAIRS = tuple(zip(VERSIONS, INTERFACES * 2, strict=True))
"""Every TensorRT version, each with one of the CUDA packages."""

_QUANTISED = """
<ir_version: 8, opset_import: ["" : 17], producer_name: "edgekit-tests">
quantised (float[batch,3,4,4] image, int32[batch] class_index) => (float[batch,4] logits, float[batch,4,4] attribution)
<
  float step = {0.05}, int8 zero_point = {0},
  float[3] weight_steps = {0.01, 0.01, 0.01}, int8[3] weight_zeros = {0, 0, 0},
  float[3,3,1,1] kernel = {1, 0, 0, 0, 1, 0, 0, 0, 1},
  float[4,3] weight = {1, 0, 0, 0, 1, 0, 0, 0, 1, -1, -1, 2},
  float[4] bias = {0, 0, 0, 0.25}, int32 zero = {0}, int64[2] cells = {2, 3}, int64[1] channel = {1}
>
{
  rounded = QuantizeLinear (image, step, zero_point)
  restored = DequantizeLinear (rounded, step, zero_point)
  kernel_rounded = QuantizeLinear <axis: int = 0> (kernel, weight_steps, weight_zeros)
  kernel_restored = DequantizeLinear <axis: int = 0> (kernel_rounded, weight_steps, weight_zeros)
  features = Conv <kernel_shape: ints = [1, 1]> (restored, kernel_restored)
  pooled = ReduceMean <axes: ints = [2, 3], keepdims: int = 0> (features)
  logits = Gemm <transB: int = 1> (pooled, weight, bias)
  top = ArgMax <axis: int = 1, keepdims: int = 0> (logits)
  top_int32 = Cast <to: int = 6> (top)
  is_own = Less (class_index, zero)
  chosen = Where (is_own, top_int32, class_index)
  alpha = Gather <axis: int = 0> (weight, chosen)
  alpha_nchw = Unsqueeze (alpha, cells)
  weighted = Mul (alpha_nchw, features)
  summed = ReduceSum <keepdims: int = 0> (weighted, channel)
  attribution = Relu (summed)
}
"""


def quantised_graph() -> onnx.ModelProto:
    """An explained graph with one quantised convolution, "conv" of the module "features.0"; its nodes have names."""
    model = onnx.parser.parse_model(_QUANTISED)
    for index, node in enumerate(model.graph.node):
        node.name = f"{node.op_type.lower()}_{index}"
        if node.op_type == "Conv":
            node.name = "conv"
            node.metadata_props.add(key="edgekit.module", value="features.0")
    onnx.checker.check_model(model)
    return model


def images(count: int, seed: int = 7) -> npt.NDArray[np.float32]:
    """float32 [count, 3, 4, 4]."""
    return np.random.default_rng(seed).normal(size=(count, 3, 4, 4)).astype(np.float32)


def own_classes(count: int) -> npt.NDArray[np.int32]:
    """The engine's own answers, for every image."""
    return np.full(count, -1, np.int32)


@dataclass
class Listener(NullObserver):
    """Keeps what it is told."""

    notes: list[str] = field(default_factory=list)
    steps: list[tuple[str, int, int | None, str]] = field(default_factory=list)

    def advanced(self, task: str, done: int, total: int | None, detail: str = "") -> None:
        self.steps.append((task, done, total, detail))

    def noted(self, message: str) -> None:
        self.notes.append(message)


def quantised(folder: Path) -> Path:
    path = folder / "quantised.onnx"
    path.write_bytes(quantised_graph().SerializeToString())
    return path


def build(
    graph: Path, folder: Path, observer: Listener | None = None, **options: Any
) -> tuple[PlanHeader, dict[str, Any]]:
    """The header, and what the stand-in was asked for."""
    path = folder / "engine.plan"
    build_plan(graph, path, BuildOptions(**options), observer or Listener())
    header, plan = read_plan(path)
    return header, dict(unpack(plan).header)


@contextmanager
def stand_in(
    version: str | None, interface: str, monkeypatch: pytest.MonkeyPatch, machine: FakeMachine | None = None
) -> Iterator[FakeMachine]:
    """Let TensorRT and a CUDA package be found, and require that all was given back and used rightly in the end."""
    # A child process would not find them, so the same code looks in this one.
    monkeypatch.setattr("edgekit.engines.tensorrt.engine._probe", look)
    # How much memory this computer has free is none of the stand-in's business.
    monkeypatch.setattr("edgekit.engines.tensorrt.build.available_memory", lambda: None)
    with installed(version, (interface,) if interface else (), machine) as there:
        yield there.machine
        assert not there.machine.leaks()
        assert not there.machine.misuses
