"""ICudaEngine: a plan in memory, and what it says of its tensors."""

from __future__ import annotations

import weakref
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import onnxruntime
from fake_cuda.errors import CudaFault

from fake_tensorrt.api import Api, Behaviour
from fake_tensorrt.inspector import EngineInspector
from fake_tensorrt.plan import Plan, pack

if TYPE_CHECKING:
    from fake_tensorrt.context import ExecutionContext
    from fake_tensorrt.runtime import Runtime

__all__ = ["NUMPY_TYPES", "Engine", "SerializationConfig", "give_back"]

NUMPY_TYPES = {
    "FLOAT": np.float32,
    "HALF": np.float16,
    "INT8": np.int8,
    "UINT8": np.uint8,
    "INT32": np.int32,
    "INT64": np.int64,
    "BOOL": np.bool_,
}
ORT_TYPES = {"tensor(int64)": np.int64, "tensor(int32)": np.int32}


class Engine(Behaviour):
    """ICudaEngine."""

    public_name = "ICudaEngine"

    def __init__(self, api: Api, runtime: Runtime, plan: Plan) -> None:
        super().__init__(api)
        self.runtime, self.plan = runtime, plan
        header = plan.header
        self.name: str = header["name"]
        self.tensors: dict[str, dict[str, Any]] = {each["name"]: each for each in header["tensors"]}
        self.profiles: list[dict[str, list[list[int]]]] = header["profiles"]
        self.layers: list[dict[str, Any]] = header["layers"]
        self.num_aux_streams: int = header["aux_streams"]
        self.tactic_sources: int = header["tactic_sources"]
        self.refittable = "REFIT" in header["flags"]
        self.contexts: weakref.WeakSet[ExecutionContext] = weakref.WeakSet()
        memory = api.machine.memory
        self.weights = memory.allocate(len(plan.model), owner="TensorRT engine").address

    def on_released(self) -> None:
        """A context needs its engine, and memory its CUDA context."""
        machine = self.api.machine
        if any(context.held for context in self.contexts):
            machine.misuses.append("an engine was destroyed before its execution context")
        give_back(self.api, self.weights, "an engine")

    @cached_property
    def session(self) -> onnxruntime.InferenceSession:
        """What executes the graph."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 4
        return onnxruntime.InferenceSession(self.plan.model, options, providers=["CPUExecutionProvider"])

    def execute(self, feeds: dict[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
        """Answers of the graph, in the types of the engine."""
        wanted = {each.name: ORT_TYPES.get(each.type) for each in self.session.get_inputs()}
        cast = {name: value.astype(wanted[name] or value.dtype, copy=False) for name, value in feeds.items()}
        names = [each.name for each in self.session.get_outputs()]
        found = zip(names, self.session.run(names, cast), strict=True)
        return {name: np.ascontiguousarray(value, NUMPY_TYPES[self.tensors[name]["dtype"]]) for name, value in found}

    # Tensors

    @property
    def num_io_tensors(self) -> int:
        """Count of inputs and outputs."""
        return len(self.tensors)

    @property
    def num_layers(self) -> int:
        """Count of the engine's layers."""
        return len(self.layers)

    @property
    def num_optimization_profiles(self) -> int:
        """Count of profiles; an engine without any has one for its fixed shapes."""
        return max(len(self.profiles), 1)

    def get_tensor_name(self, index: int) -> str:
        """Name by index."""
        return list(self.tensors)[index]

    def get_tensor_mode(self, name: str) -> Any:
        """Input, output, or neither."""
        return self.api.enum("TensorIOMode", self.tensors[name]["mode"] if name in self.tensors else "NONE")

    def get_tensor_shape(self, name: str) -> Any:
        """Shape with -1 where it is dynamic; nothing for an unknown name."""
        return self.api.dims(self._found(name)["shape"]) if self._found(name) else self.api.dims(())

    def get_tensor_dtype(self, name: str) -> Any:
        """Type; FLOAT for an unknown name, as the library answers."""
        found = self._found(name)
        return self.api.enum("DataType", found["dtype"] if found else "FLOAT")

    def get_tensor_location(self, name: str) -> Any:
        """Where a tensor lies."""
        return self.api.enum("TensorLocation", "DEVICE")

    def get_tensor_format(self, name: str, profile_index: int = 0) -> Any:
        """How a tensor lies."""
        return self.api.enum("TensorFormat", "LINEAR")

    def get_tensor_format_desc(self, name: str, profile_index: int = 0) -> str:
        """How a tensor lies, in words."""
        precision = {"FLOAT": "FP32", "HALF": "FP16"}.get(self.tensors[name]["dtype"], self.tensors[name]["dtype"])
        return f"Row major linear {precision} format (kLINEAR)"

    def get_tensor_vectorized_dim(self, name: str, profile_index: int = 0) -> int:
        """-1: none is."""
        return -1

    def get_tensor_bytes_per_component(self, name: str, profile_index: int = 0) -> int:
        """-1: not vectorised."""
        return -1

    def get_tensor_components_per_element(self, name: str, profile_index: int = 0) -> int:
        """-1: not vectorised."""
        return -1

    def is_shape_inference_io(self, name: str) -> bool:
        """Whether a tensor is needed to know shapes."""
        return False

    def get_tensor_profile_shape(self, name: str, profile_index: int) -> list[Any]:
        """Smallest, usual and largest shape of an input."""
        found = self._found(name)
        if not found or found["mode"] != "INPUT" or not 0 <= profile_index < self.num_optimization_profiles:
            self.error(f"no profile {profile_index} of {name}")
            return []
        return [self.api.dims(shape) for shape in self.profile_shapes(name, profile_index)]

    def profile_shapes(self, name: str, index: int) -> list[list[int]]:
        """As `get_tensor_profile_shape`, for the fake itself."""
        fixed: list[int] = self.tensors[name]["shape"]
        return self.profiles[index].get(name, [fixed] * 3) if self.profiles else [fixed] * 3

    def _found(self, name: str) -> dict[str, Any]:
        found = self.tensors.get(name)
        if found is None:
            self.error(f"Given invalid tensor name: {name}. Get valid tensor names with getIOTensorName()")
        return found or {}

    # Everything else

    @property
    def device_memory_size(self) -> int:
        """Bytes that an execution context takes."""
        wanted = self.api.machine.faults.engine_memory
        return max(len(self.plan.model), 1 << 20) if wanted is None else wanted

    @property
    def device_memory_size_v2(self) -> int:
        """Bytes that an execution context takes."""
        return self.device_memory_size

    @property
    def engine_capability(self) -> Any:
        """As built."""
        return self.api.enum("EngineCapability", self.plan.header["engine_capability"])

    @property
    def profiling_verbosity(self) -> Any:
        """As built."""
        return self.api.enum("ProfilingVerbosity", self.plan.header["profiling_verbosity"])

    @property
    def hardware_compatibility_level(self) -> Any:
        """As built."""
        return self.api.enum("HardwareCompatibilityLevel", self.plan.header["hardware_compatibility_level"])

    def serialize(self) -> Any:
        """The plan."""
        return self.api.host_memory(pack(self.plan))

    def create_serialization_config(self) -> Any:
        """What to leave out of a plan."""
        return SerializationConfig(self.api)

    def serialize_with_config(self, config: Any) -> Any:
        """The plan; the fake leaves nothing out."""
        return self.serialize()

    def create_engine_inspector(self) -> EngineInspector:
        """What tells of layers."""
        return EngineInspector(self.api, self)

    def create_execution_context(self, strategy: Any = None) -> ExecutionContext | None:
        """A context, or None with an error in the log where memory is short."""
        from fake_tensorrt.context import ExecutionContext

        size = max(self.device_memory_size, 1)
        try:
            self.api.touch()
            scratch = self.api.machine.memory.allocate(size, owner="TensorRT execution context")
        except CudaFault as fault:
            memory = fault.name == "cudaErrorMemoryAllocation"
            what = f"OutOfMemory (Requested size was {size} bytes.)" if memory else f"Cuda Runtime ({fault})"
            self.error(f"Error Code {2 if memory else 1}: {what}")
            return None
        context = ExecutionContext(self.api, self, scratch.address)
        self.contexts.add(context)
        return context

    def error(self, message: str) -> None:
        """Tell the runtime's logger."""
        self.api.log(self.runtime.logger, "ERROR", f"ICudaEngine: {message}")


class SerializationConfig(Behaviour):
    """ISerializationConfig."""

    public_name = "ISerializationConfig"

    def __init__(self, api: Api) -> None:
        super().__init__(api)
        self.flags = 0

    def set_flag(self, flag: Any) -> bool:
        """Set a flag."""
        self.flags |= 1 << int(flag)
        return True

    def clear_flag(self, flag: Any) -> bool:
        """Clear a flag."""
        self.flags &= ~(1 << int(flag))
        return True

    def get_flag(self, flag: Any) -> bool:
        """Whether a flag is set."""
        return bool(self.flags >> int(flag) & 1)


def give_back(api: Api, address: int, what: str) -> None:
    """Free memory of a TensorRT object that goes; its CUDA context has to be there still."""
    machine = api.machine
    if not machine.context_alive or machine.memory.find(address, 1) is None:
        machine.misuses.append(f"{what} of TensorRT was destroyed after its CUDA context")
        return
    machine.memory.release(address)
