"""ONNX Runtime's CUDA provider: the explained graph, FP32, FP16 or Q/DQ, on an NVIDIA card.

The artifact is the ONNX file itself. The provider computes what lies between quantisation and dequantisation in float,
as far as is known: INT8 graphs keep their rounding and may gain no speed. Never run on a GPU, see
`onnxruntime_gpu_status`.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from edgekit.core.canonical import JsonValue
from edgekit.core.progress import NULL_OBSERVER, Observer
from edgekit.engines.cuda_driver import cuda_of_driver, device_name
from edgekit.engines.onnx_artifact import opened_info, read_graph, store_graph
from edgekit.engines.onnxruntime_binding import BoundRunner
from edgekit.engines.onnxruntime_gpu import DEVICE, GpuProvider, gpu_availability, open_gpu_session
from edgekit.engines.onnxruntime_gpu_status import NEVER_RUN_ON_GPU
from edgekit.engines.onnxruntime_placement import Placement, check_placement, read_placement
from edgekit.engines.onnxruntime_session import check_session
from edgekit.engines.protocol import Availability, Engine, EngineInfo, EngineOptions, Runner

__all__ = ["CUDA_OPTIONS", "CUDA_PROVIDER", "ENGINE", "OrtCudaEngine", "gpu_conditions", "gpu_runner", "placement_of"]

CUDA_PROVIDER = "CUDAExecutionProvider"
CUDA_OPTIONS: Mapping[str, str] = MappingProxyType(
    {
        "device_id": str(DEVICE),
        # TensorFloat-32 keeps 10 bits of the fraction; an engine that is called FP32 keeps 23.
        "use_tf32": "0",
        # The default tries kernels and takes the fastest, another one every time.
        "cudnn_conv_algo_search": "HEURISTIC",
    }
)
"""Options of the provider: everything that changes answers is decided."""


@dataclass(frozen=True)
class OrtCudaEngine:
    """The engine.

    Attributes:
        name: Registry name.
    """

    name: str = "ort-cuda"

    def availability(self) -> Availability:
        """Whether onnxruntime-gpu is installed alone, with a driver that is new enough."""
        return gpu_availability(CUDA_PROVIDER)

    def build(self, graph: Path, artifact: Path, observer: Observer = NULL_OBSERVER) -> EngineInfo:
        """Store the graph as the artifact, once one image has gone through it and its nodes ran on the GPU."""
        info = store_graph(self.name, graph, artifact, self._look)
        observer.noted(f"{NEVER_RUN_ON_GPU}.")
        return info

    def conditions(self) -> Mapping[str, JsonValue]:
        """The card, and the CUDA that its driver supports."""
        return gpu_conditions()

    def open(self, artifact: Path, options: EngineOptions) -> Runner:
        """Open an artifact. Threads of the host make no difference to it."""
        del options
        return gpu_runner(read_graph(artifact), self._provider, artifact)

    def _look(self, graph: Path) -> EngineInfo:
        info = opened_info(self.open(graph, EngineOptions()))
        placement = placement_of(read_graph(graph), self._provider, where=str(graph))
        check_placement(placement, CUDA_PROVIDER, where=str(graph))
        return replace(info, details={**info.details, "placement": placement.to_dict()})

    @property
    def _provider(self) -> GpuProvider:
        return GpuProvider(self.name, CUDA_PROVIDER, CUDA_OPTIONS)


def gpu_runner(model: bytes, provider: GpuProvider, artifact: Path, most: int | None = None) -> BoundRunner:
    """A runner over a session that has the provider in use.

    Args:
        model: The ONNX model.
        provider: What is asked for.
        artifact: The model's file, for messages.
        most: See `BoundRunner`.

    Raises:
        UnavailableError: The provider is not here or not in use.
        IntegrityError: The model cannot be opened or is no explained graph.
    """
    session = open_gpu_session(model, provider, where=str(artifact))
    check_session(session, artifact)
    import onnxruntime as ort

    info = EngineInfo(
        engine=provider.engine,
        runtime=f"onnxruntime {ort.__version__}",
        device=device_name(DEVICE) or "an NVIDIA GPU that tells no name",
        details={
            "notice": NEVER_RUN_ON_GPU,
            "providers": list(session.get_providers()),
            "provider_options": dict(provider.options),
        },
    )
    return BoundRunner(session, info, most)


def gpu_conditions() -> dict[str, JsonValue]:
    """What of a card an artifact was tried on: its name, and the CUDA that its driver supports. Raises nothing."""
    driver = cuda_of_driver()
    return {"gpu": device_name(DEVICE) or "", "cuda_of_driver": list(driver) if driver else []}


def placement_of(model: bytes, provider: GpuProvider, *, where: str) -> Placement:
    """Where the nodes run, found by running one image of zeros through a session of its own. Raises as `gpu_runner`."""
    with tempfile.TemporaryDirectory(prefix="edgekit-placement-") as scratch:
        session = open_gpu_session(model, provider, where=where, profile=str(Path(scratch) / "profile"))
        with BoundRunner(session, EngineInfo(provider.engine, "", "")) as runner:
            shapes: dict[str, Any] = {value.name: value.shape for value in session.get_inputs()}
            image = np.zeros((1, *shapes["image"][1:]), dtype=np.float32)
            runner.run(image, np.full(1, -1, dtype=np.int32))
            return read_placement(Path(session.end_profiling()))


ENGINE: Engine = OrtCudaEngine()
