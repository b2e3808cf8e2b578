"""ONNX Runtime's TensorRT provider as a builder: another way to a TensorRT engine, on a card of this machine.

The artifact is an ONNX file that holds the built engine (ONNX Runtime's EPContext node): what ships is what was
verified, where the provider would otherwise build another engine whenever the graph is opened. Caches of engines and
timings are off, since it would read them from the working directory. Never run on a GPU, see `onnxruntime_gpu_status`.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from edgekit.core.canonical import JsonValue
from edgekit.core.files import read_bytes, write_bytes
from edgekit.core.progress import NULL_OBSERVER, Observer
from edgekit.engines.onnx_artifact import ENGINE_NODE, opened_info, read_graph, refusing_graphs
from edgekit.engines.onnxruntime_gpu import DEVICE, EXPECTED_HERE, GpuProvider, gpu_availability, open_gpu_session
from edgekit.engines.onnxruntime_gpu_status import NEVER_RUN_ON_GPU
from edgekit.engines.onnxruntime_placement import check_placement
from edgekit.engines.onnxruntime_session import SessionSettings, open_session
from edgekit.engines.ort_cuda import CUDA_OPTIONS, CUDA_PROVIDER, gpu_conditions, gpu_runner, placement_of
from edgekit.engines.protocol import Availability, Engine, EngineInfo, EngineOptions, Runner
from edgekit.engines.tensorrt.onnx_outline import read_outline
from edgekit.engines.tf32 import decide_tf32, stored_tf32, with_tf32
from edgekit.engines.tuning import Tuning
from edgekit.errors import IntegrityError, UnavailableError

__all__ = ["ENGINE", "MOST_IMAGES", "TENSORRT_PROVIDER", "OrtTensorRtEngine"]

TENSORRT_PROVIDER = "TensorrtExecutionProvider"
MOST_IMAGES = 32
"""Images that the engine of a graph of any batch takes at a time; larger batches are run in parts."""

# The attribute that says where that engine is, and how protobuf writes it with 1 for "in this node": with another value
# ONNX Runtime would look for a file, and take whatever lies there for the engine.
_EMBED_MODE = b"embed_mode"
_EMBEDDED = b"embed_mode\x18\x01"
_CONTEXT_NAME = "engine.onnx"


@dataclass(frozen=True)
class OrtTensorRtEngine:
    """The engine.

    Attributes:
        name: Registry name.
        tf32: Let FP32 be computed with TensorFloat-32; see `edgekit.engines.tf32`.
    """

    name: str = "ort-tensorrt"
    tf32: bool = False

    def availability(self) -> Availability:
        """Whether onnxruntime-gpu is installed alone, with a driver that is new enough.

        TensorRT's own libraries are looked up when an engine is built; a build tells where they are not here.
        """
        return gpu_availability(TENSORRT_PROVIDER)

    def build(self, graph: Path, artifact: Path, observer: Observer = NULL_OBSERVER) -> EngineInfo:
        """Build an engine for this card, and store it once one image has gone through it on the GPU."""
        self._require_here()
        decide_tf32(self.tf32, where=str(graph))
        with refusing_graphs(self.name):
            with open_session(graph, SessionSettings(self.name, optimise=False, threads=1)) as plain:
                shapes = plain.input_shapes
            model = read_graph(graph)
            asked = {**_precision(model, str(graph)), **_profile(shapes)}
            built = with_tf32(self._built(model, asked, where=str(graph)), self.tf32)
            info = opened_info(gpu_runner(built, self._provider(), graph, MOST_IMAGES))
            placement = placement_of(built, self._provider(), where=str(graph))
        check_placement(placement, TENSORRT_PROVIDER, where=str(graph))
        write_bytes(artifact, built)
        observer.noted(f"{NEVER_RUN_ON_GPU}.")
        return replace(
            info, details={**info.details, "built_with": asked, "tf32": self.tf32, "placement": placement.to_dict()}
        )

    def open(self, artifact: Path, options: EngineOptions) -> Runner:
        """Open an artifact. Threads of the host make no difference to it."""
        del options
        self._require_here()
        model = read_graph(artifact)
        if ENGINE_NODE.encode() not in model:
            raise IntegrityError(
                "The file holds no engine that was built by ONNX Runtime's TensorRT provider.",
                where=str(artifact),
                expected="an ONNX file with an EPContext node",
                hint="build it with 'edgekit build --engine ort-tensorrt': of a plain graph TensorRT would make an "
                "engine that nobody verified",
            )
        if model.count(_EMBED_MODE) != model.count(_EMBEDDED):
            raise IntegrityError(
                "The ONNX file keeps TensorRT's engine in another file, which no digest of this one covers.",
                where=str(artifact),
                hint="build it with 'edgekit build --engine ort-tensorrt'",
            )
        # As it was built, whatever this object was told: what runs is what was verified.
        decide_tf32(stored_tf32(model, where=str(artifact)), where=str(artifact))
        return gpu_runner(model, self._provider(), artifact, MOST_IMAGES)

    def tuned(self, tuning: Tuning) -> OrtTensorRtEngine:
        """The engine that builds with or without TensorFloat-32, which is all that the provider takes of a recipe."""
        return replace(self, tf32=tuning.tensorrt.tf32)

    def conditions(self) -> Mapping[str, JsonValue]:
        """The card, and the CUDA that its driver supports."""
        return gpu_conditions()

    def _require_here(self) -> None:
        available = self.availability()
        if not available.available:
            raise UnavailableError(
                f"The engine {self.name!r} cannot run here.",
                expected=EXPECTED_HERE,
                found=available.reason,
                hint=available.hint,
            )

    def _built(self, model: bytes, asked: Mapping[str, str], *, where: str) -> bytes:
        """The ONNX file with the engine, as the provider writes it when it opens a graph."""
        with tempfile.TemporaryDirectory(prefix="edgekit-engine-") as scratch:
            context = Path(scratch) / _CONTEXT_NAME
            entries = {
                "ep.context_enable": "1",
                "ep.context_file_path": str(context),
                # Engine and graph in one file, which one digest covers.
                "ep.context_embed_mode": "1",
            }
            open_gpu_session(model, self._provider(asked, entries), where=where)
            if not context.is_file():
                raise UnavailableError(
                    "ONNX Runtime's TensorRT provider wrote no engine.",
                    where=where,
                    expected="an onnxruntime-gpu with EPContext models, from 1.17 on, and TensorRT's libraries",
                    hint="name another engine with --engine",
                )
            return read_bytes(context)

    def _provider(
        self, asked: Mapping[str, str] | None = None, entries: Mapping[str, str] | None = None
    ) -> GpuProvider:
        options = {
            "device_id": str(DEVICE),
            "trt_fp16_enable": "0",
            "trt_engine_cache_enable": "0",
            "trt_timing_cache_enable": "0",
            **(asked or {}),
        }
        return GpuProvider(self.name, TENSORRT_PROVIDER, options, entries or {}, ((CUDA_PROVIDER, CUDA_OPTIONS),))


def _precision(model: bytes, where: str) -> dict[str, str]:
    """INT8 where the graph says how, since without scales TensorRT would have to make some up; FP16 where it has it."""
    typed = read_outline(model, where).typed
    return {"trt_int8_enable": "1" if b"QuantizeLinear" in model else "0", "trt_fp16_enable": "1" if typed else "0"}


def _profile(shapes: Mapping[str, tuple[int | str, ...]]) -> dict[str, str]:
    """The batches that an engine is built for: one image best, `MOST_IMAGES` at most; nothing where all sizes are set.

    Without it the provider builds an engine anew for every size that it meets.
    """
    if all(isinstance(size, int) for shape in shapes.values() for size in shape):
        return {}

    def told(batch: int) -> str:
        sizes = {name: [batch if isinstance(size, str) else size for size in shape] for name, shape in shapes.items()}
        return ",".join(f"{name}:{'x'.join(map(str, shape))}" for name, shape in sizes.items())

    return {
        "trt_profile_min_shapes": told(1),
        "trt_profile_opt_shapes": told(1),
        "trt_profile_max_shapes": told(MOST_IMAGES),
    }


ENGINE: Engine = OrtTensorRtEngine()
