"""ONNX Runtime with a GPU where there is none: a strict stand-in for the package, over the real one's CPU session.

It has what edgekit may use and nothing else: other names raise AttributeError. Names and order of arguments are those
of the installed onnxruntime, which a test compares. Arrays "on the device" can be read by nobody but a session. What
passes with it has run our code, and no GPU.
"""

from __future__ import annotations

import json
import sys
import types
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as real
import pytest
from onnx import helper

from edgekit.engines.onnxruntime_gpu import _preload

__all__ = ["CPU", "CUDA", "TENSORRT", "FakeGpu", "StandInSession", "gpu_stand_in"]

CUDA, TENSORRT, CPU = "CUDAExecutionProvider", "TensorrtExecutionProvider", "CPUExecutionProvider"

# Options by their names in the providers' documentation; another one is an error in ONNX Runtime too.
_OPTIONS = {
    CUDA: {"device_id", "use_tf32", "cudnn_conv_algo_search", "gpu_mem_limit", "arena_extend_strategy"},
    TENSORRT: {
        "device_id",
        "trt_fp16_enable",
        "trt_int8_enable",
        "trt_engine_cache_enable",
        "trt_timing_cache_enable",
        "trt_profile_min_shapes",
        "trt_profile_opt_shapes",
        "trt_profile_max_shapes",
    },
    CPU: set(),
}
_CONTEXT_ENTRIES = ("ep.context_enable", "ep.context_file_path", "ep.context_embed_mode")


@dataclass
class FakeGpu:
    """The machine, and what is wrong with it.

    Attributes:
        available: What `get_available_providers` says.
        loadable: Providers whose libraries can be loaded; others are left out of a session without a word.
        driver: CUDA that the driver supports, None without a driver.
        built_for: CUDA that onnxruntime was built for; empty where the package does not say.
        distributions: Installed distributions of ONNX Runtime.
        opening: Raised when a session is made with a GPU's provider.
        running: Raised when a session is run.
        on_processor: Operators that run on the processor.
        writes_context: TensorRT's provider writes the file that it was asked for.
        sessions: Every session that was made.
    """

    available: tuple[str, ...] = (TENSORRT, CUDA, CPU)
    loadable: tuple[str, ...] = (TENSORRT, CUDA, CPU)
    driver: tuple[int, int] | None = (12, 4)
    built_for: str = "12.8"
    distributions: tuple[str, ...] = ("onnxruntime-gpu",)
    opening: Exception | None = None
    running: Exception | None = None
    on_processor: tuple[str, ...] = ()
    writes_context: bool = True
    sessions: list[StandInSession] = field(default_factory=list)


class StandInValue:
    """`OrtValue`, as far as it is used."""

    def __init__(self, array: np.ndarray, device: str) -> None:
        self._array = array
        self._device = device

    @classmethod
    def ortvalue_from_numpy(
        cls, numpy_obj: np.ndarray, /, device_type: str = "cpu", device_id: int = 0, vendor_id: int = -1
    ) -> StandInValue:
        assert numpy_obj.flags.c_contiguous
        assert (device_type, device_id, vendor_id) == ("cuda", 0, -1)
        return cls(numpy_obj.copy(), device_type)

    def shape(self) -> list[int]:
        return list(self._array.shape)

    def update_inplace(self, data: np.ndarray) -> None:
        if data.shape != self._array.shape or data.dtype != self._array.dtype:
            raise ValueError("The source does not fit the memory of the OrtValue.")
        self._array[...] = data


class StandInBinding:
    """`IOBinding`, as far as it is used."""

    def __init__(self, session: StandInSession) -> None:
        self._session = session
        self._inputs: dict[str, StandInValue] = {}
        self._outputs: dict[str, np.ndarray | None] = {}

    def bind_ortvalue_input(self, name: str, ortvalue: StandInValue) -> None:
        if name not in {value.name for value in self._session.get_inputs()}:
            raise RuntimeError(f"Failed to find input name in graph: {name}")
        assert isinstance(ortvalue, StandInValue)
        self._inputs[name] = ortvalue

    def bind_output(
        self,
        name: str,
        device_type: str = "cpu",
        device_id: int = 0,
        element_type: object = None,
        shape: object = None,
        buffer_ptr: object = None,
    ) -> None:
        assert (device_type, device_id, element_type, shape, buffer_ptr) == ("cuda", 0, None, None, None)
        if name not in {value.name for value in self._session.get_outputs()}:
            raise RuntimeError(f"Failed to find output name in graph: {name}")
        self._outputs[name] = None

    def synchronize_inputs(self) -> None:
        pass

    def synchronize_outputs(self) -> None:
        pass

    def copy_outputs_to_cpu(self) -> list[np.ndarray]:
        if any(array is None for array in self._outputs.values()):
            raise RuntimeError("The outputs were not computed.")
        return [array.copy() for array in self._outputs.values() if array is not None]

    def fill(self) -> None:
        """Compute; a bound output that was not bound anew keeps the size that it has."""
        found = self._session.computed({name: value._array for name, value in self._inputs.items()})
        for name, array in zip((value.name for value in self._session.get_outputs()), found, strict=True):
            if name not in self._outputs:
                continue
            held = self._outputs[name]
            if held is not None and held.shape != array.shape:
                raise RuntimeError(f"The bound output {name} has another shape.")
            self._outputs[name] = array


class StandInSession:
    """`InferenceSession`, as far as it is used. `run` is not: batches go by IO binding."""

    def __init__(
        self,
        path_or_bytes: bytes,
        sess_options: Any = None,
        providers: Sequence[Any] | None = None,
        provider_options: Sequence[dict[Any, Any]] | None = None,
        **kwargs: Any,
    ) -> None:
        assert isinstance(path_or_bytes, bytes)
        assert provider_options is None
        assert set(kwargs) <= {"enable_fallback", "disabled_optimizers"}
        self._gpu = _gpu()
        self._fallback = bool(kwargs.get("enable_fallback", 1))
        asked = [item if isinstance(item, tuple) else (item, {}) for item in providers or ()]
        self.options = {name: dict(options) for name, options in asked}
        self._check_asked()
        self.providers = [name for name, _ in asked if name in self._gpu.loadable]
        if self._gpu.opening is not None:
            if not self._fallback:
                raise self._gpu.opening
            self.providers = [CPU]
        self._most = 0
        self._session = self._opened(path_or_bytes, sess_options)
        self._gpu.sessions.append(self)

    def _check_asked(self) -> None:
        for name, options in self.options.items():
            if name not in self._gpu.available:
                raise ValueError(f"{name} is not available")
            unknown = set(options) - _OPTIONS[name]
            if unknown or not all(isinstance(value, str) for value in options.values()):
                raise ValueError(f"Invalid provider option of {name}: {unknown or options}")
        if list(self.options)[-1:] != [CPU]:
            raise ValueError("The processor comes last.")

    def _opened(self, model: bytes, options: Any) -> real.InferenceSession:
        cleaned = real.SessionOptions()
        cleaned.log_severity_level = 4
        assert options.use_deterministic_compute
        if options.enable_profiling:
            cleaned.enable_profiling = True
            cleaned.profile_file_prefix = options.profile_file_prefix
        if b"EPContext" in model:
            engine = onnx.load_from_string(model).graph.node[0]
            told = {attribute.name: helper.get_attribute_value(attribute) for attribute in engine.attribute}
            if TENSORRT not in self.providers:
                raise RuntimeError("Fatal error: com.microsoft:EPContext(-1) is not a registered function/op")
            model, self._most = told["ep_cache_context"], told["most"]
        session = real.InferenceSession(model, cleaned, providers=[CPU])
        entries = {key: _entry(options, key) for key in _CONTEXT_ENTRIES}
        if entries["ep.context_enable"] == "1" and TENSORRT in self.providers and self._gpu.writes_context:
            assert entries["ep.context_embed_mode"] == "1"
            Path(entries["ep.context_file_path"]).write_bytes(self._context(model, session))
        return session

    def _context(self, model: bytes, session: real.InferenceSession) -> bytes:
        """What TensorRT's provider writes: a graph of one node, with the engine as an attribute. Here that is ONNX."""
        graph = onnx.load_from_string(model).graph
        asked = self.options[TENSORRT]
        assert (asked["trt_engine_cache_enable"], asked["trt_timing_cache_enable"]) == ("0", "0")
        quantised = any(node.op_type == "QuantizeLinear" for node in graph.node)
        assert asked["trt_int8_enable"] == ("1" if quantised else "0")
        most = self._profile(asked, session)
        engine = helper.make_node(
            "EPContext",
            [value.name for value in graph.input],
            [value.name for value in graph.output],
            domain="com.microsoft",
            embed_mode=1,
            ep_cache_context=model,
            most=most,
        )
        whole = helper.make_graph([engine], "engine", list(graph.input), list(graph.output))
        return helper.make_model(whole).SerializeToString()

    @staticmethod
    def _profile(asked: dict[str, str], session: real.InferenceSession) -> int:
        shapes = {value.name: value.shape for value in session.get_inputs()}
        if all(isinstance(size, int) for shape in shapes.values() for size in shape):
            assert "trt_profile_max_shapes" not in asked
            return 0
        batches = {}
        for kind in ("min", "opt", "max"):
            told = dict(item.split(":") for item in asked[f"trt_profile_{kind}_shapes"].split(","))
            sizes = {name: [int(size) for size in text.split("x")] for name, text in told.items()}
            assert sizes.keys() == shapes.keys()
            for name, shape in shapes.items():
                assert all(isinstance(size, str) or size == sizes[name][at] for at, size in enumerate(shape))
            (batches[kind],) = {size[0] for size in sizes.values()}
        assert 1 <= batches["min"] <= batches["opt"] <= batches["max"]
        return batches["max"]

    def get_providers(self) -> list[str]:
        return list(self.providers)

    def get_inputs(self) -> list[Any]:
        return self._session.get_inputs()  # type: ignore[no-any-return]

    def get_outputs(self) -> list[Any]:
        return self._session.get_outputs()  # type: ignore[no-any-return]

    def disable_fallback(self) -> None:
        self._fallback = False

    def io_binding(self) -> StandInBinding:
        return StandInBinding(self)

    def run_with_iobinding(self, iobinding: StandInBinding, run_options: object = None) -> None:
        if self._gpu.running is not None:
            if not self._fallback:
                raise self._gpu.running
            self.providers = [CPU]
        iobinding.fill()

    def computed(self, fed: dict[str, np.ndarray]) -> list[np.ndarray]:
        if self._most and len(fed["image"]) > self._most:
            raise RuntimeError("TensorRT EP: the input's shape is outside the optimization profile")
        return self._session.run(None, fed)  # type: ignore[no-any-return]

    def end_profiling(self) -> str:
        path = Path(self._session.end_profiling())
        events = json.loads(path.read_text())
        for event in events:
            if event["cat"] == "Node" and event["args"]["op_name"] not in self._gpu.on_processor:
                event["args"]["provider"] = self.providers[0]
        path.write_text(json.dumps(events))
        return str(path)


def _entry(options: Any, key: str) -> str:
    try:
        return str(options.get_session_config_entry(key))
    except RuntimeError:
        return ""


_CURRENT: list[FakeGpu] = []


def _gpu() -> FakeGpu:
    return _CURRENT[-1]


@contextmanager
def gpu_stand_in(monkeypatch: pytest.MonkeyPatch, gpu: FakeGpu | None = None) -> Iterator[FakeGpu]:
    """Put the stand-in in the package's place."""
    machine = gpu or FakeGpu()
    module = types.ModuleType("onnxruntime")
    module.__dict__.update(
        __version__=real.__version__,
        SessionOptions=real.SessionOptions,
        GraphOptimizationLevel=real.GraphOptimizationLevel,
        OrtValue=StandInValue,
        InferenceSession=_session_of,
        get_available_providers=lambda: list(machine.available),
        preload_dlls=lambda: print("Failed to load a library"),
    )
    told = types.ModuleType("onnxruntime.capi.build_and_package_info")
    if machine.built_for:
        told.__dict__["cuda_version"] = machine.built_for
    _CURRENT.append(machine)
    _preload.cache_clear()
    try:
        with monkeypatch.context() as patched:
            patched.setitem(sys.modules, "onnxruntime", module)
            patched.setitem(sys.modules, "onnxruntime.capi.build_and_package_info", told)
            for place in ("cuda_of_driver", "onnxruntime_distributions"):
                answer = machine.driver if place == "cuda_of_driver" else machine.distributions
                patched.setattr(f"edgekit.engines.onnxruntime_gpu.{place}", lambda answer=answer: answer)
            patched.setattr("edgekit.engines.ort_cuda.device_name", lambda number: f"a stand-in for GPU {number}")
            yield machine
    finally:
        _CURRENT.pop()
        _preload.cache_clear()


def _session_of(model: bytes, *arguments: Any, **options: Any) -> Any:
    """The real session for who asks for the processor alone, as the engines on it do."""
    if options.get("providers") == [CPU]:
        return real.InferenceSession(model, *arguments, **options)
    return StandInSession(model, *arguments, **options)
