"""IExecutionContext: shapes, addresses, and the work that goes into a stream."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from fake_cuda.errors import CudaFault
from fake_cuda.streams import LEGACY_STREAM, Stream

from fake_tensorrt.api import Api, Behaviour
from fake_tensorrt.engine import NUMPY_TYPES, give_back

if TYPE_CHECKING:
    from fake_tensorrt.engine import Engine

__all__ = ["ExecutionContext"]

ALIGNMENT = 256
LAYER_MS = 0.01
Shape = tuple[int, ...]


class ExecutionContext(Behaviour):
    """IExecutionContext."""

    public_name = "IExecutionContext"

    def __init__(self, api: Api, engine: Engine, scratch: int) -> None:
        super().__init__(api)
        self.engine = engine
        self.name = ""
        self.debug_sync = False
        self.nvtx_verbosity = engine.profiling_verbosity
        self.persistent_cache_limit = 0
        self.profiler: Any = None
        self.enqueue_emits_profile = True
        self.active_optimization_profile = 0
        self._scratch = scratch
        self._addresses: dict[str, int] = {}
        self._shapes: dict[str, Shape] = {}
        self._resolved: dict[tuple[Shape, ...], dict[str, Shape]] = {}
        self._warm: tuple[Any, ...] | None = None
        self._unreported = False
        self._queued = 0
        self._forget_shapes()

    def on_released(self) -> None:
        """Work must not outlive it, nor it the CUDA context."""
        if self._queued > 0 and self.api.machine.lost is None:
            self.api.machine.misuses.append("an execution context was destroyed while its work was queued")
        give_back(self.api, self._scratch, "an execution context")

    # Shapes

    def _inputs(self) -> list[str]:
        return [name for name, tensor in self.engine.tensors.items() if tensor["mode"] == "INPUT"]

    def _forget_shapes(self) -> None:
        fixed = {name: tuple(self.engine.tensors[name]["shape"]) for name in self._inputs()}
        self._shapes = {name: shape for name, shape in fixed.items() if -1 not in shape}

    @property
    def all_binding_shapes_specified(self) -> bool:
        """Every input has a shape."""
        return set(self._shapes) == set(self._inputs())

    def set_input_shape(self, name: str, shape: Any) -> bool:
        """Shape of an input; False with an error in the log where the profile does not hold it."""
        wanted = tuple(int(each) for each in shape)
        if name not in self._inputs():
            return self._error("setInputShape", f"{name} is no input")
        small, _, large = self.engine.profile_shapes(name, self.active_optimization_profile)
        inside = len(wanted) == len(small) and all(
            low <= size <= high for low, size, high in zip(small, wanted, large, strict=True)
        )
        if not inside:
            return self._error(
                "setInputShape",
                f"Set dimension {list(wanted)} for tensor {name} does not satisfy any optimization profiles. Valid "
                f"range for profile {self.active_optimization_profile}: {small}..{large}",
            )
        self._shapes[name] = wanted
        return True

    def set_optimization_profile_async(self, profile_index: int, stream_handle: int) -> bool:
        """Choose a profile; shapes have to be set again, and addresses: nothing says that they outlive a change."""
        self._stream(stream_handle)
        if not 0 <= profile_index < self.engine.num_optimization_profiles:
            return self._error("setOptimizationProfileAsync", f"no profile {profile_index}")
        if profile_index != self.active_optimization_profile:
            self._addresses.clear()
        self.active_optimization_profile = int(profile_index)
        self._forget_shapes()
        self._warm = None
        return True

    def infer_shapes(self) -> list[str]:
        """Inputs whose shape is missing."""
        return [name for name in self._inputs() if name not in self._shapes]

    def get_tensor_shape(self, name: str) -> Any:
        """Shape as it is now, -1 where that depends on inputs without one."""
        if name not in self.engine.tensors:
            self._error("getTensorShape", f"no tensor {name}")
            return self.api.dims(())
        if name in self._shapes:
            return self.api.dims(self._shapes[name])
        if name in self._inputs() or not self.all_binding_shapes_specified:
            return self.api.dims(self.engine.tensors[name]["shape"])
        return self.api.dims(self._output_shapes(self._shapes)[name])

    def get_tensor_strides(self, name: str) -> Any:
        """Elements between neighbours along each dimension."""
        shape = tuple(self.get_tensor_shape(name))
        if -1 in shape:
            return self.api.dims([-1] * len(shape))
        return self.api.dims([int(np.prod(shape[at + 1 :])) for at in range(len(shape))])

    def get_max_output_size(self, name: str) -> int:
        """Bytes of an output with the profile's largest inputs."""
        largest = {
            each: tuple(self.engine.profile_shapes(each, self.active_optimization_profile)[2])
            for each in self._inputs()
        }
        return int(np.prod(self._output_shapes(largest)[name])) * self._itemsize(name)

    def _output_shapes(self, shapes: dict[str, Shape]) -> dict[str, Shape]:
        # Found by running the graph on zeros: right for any graph, and engines of tests are small.
        key = tuple(shapes[name] for name in self._inputs())
        if key not in self._resolved:
            feeds = {name: np.zeros(shape, self._numpy(name)) for name, shape in shapes.items()}
            self._resolved[key] = {name: value.shape for name, value in self.engine.execute(feeds).items()}
        return self._resolved[key]

    def _numpy(self, name: str) -> Any:
        return NUMPY_TYPES[self.engine.tensors[name]["dtype"]]

    def _itemsize(self, name: str) -> int:
        return int(np.dtype(self._numpy(name)).itemsize)

    # Addresses

    def set_tensor_address(self, name: str, memory: int) -> bool:
        """Where a tensor lies. Whether that is memory shows when work runs."""
        address = int(memory)
        if name not in self.engine.tensors:
            return self._error("setTensorAddress", f"no tensor {name}")
        if address % ALIGNMENT:
            return self._error("setTensorAddress", f"{address:#x} of {name} is not aligned to {ALIGNMENT} bytes")
        self._addresses[name] = address
        return True

    def get_tensor_address(self, name: str) -> int:
        """Where a tensor lies; 0 where that was not said."""
        return self._addresses.get(name, 0)

    def set_aux_streams(self, aux_streams: list[int]) -> None:
        """Streams for branches."""
        for handle in aux_streams:
            self._stream(handle)

    # Work

    def execute_async_v3(self, stream_handle: int) -> bool:
        """Queue one execution; False with an error in the log where it cannot be."""
        try:
            self.api.touch()
        except CudaFault as fault:
            return self._error("enqueueV3", f"Cuda Runtime ({fault})")
        stream, faults = self._stream(stream_handle), self.api.machine.faults
        if faults.enqueue_fails:
            return self._error("enqueueV3", faults.enqueue_fails)
        missing = self.infer_shapes()
        if missing:
            return self._error("enqueueV3", f"inputs without a shape: {', '.join(missing)}")
        unbound = [name for name in self.engine.tensors if not self._addresses.get(name)]
        if unbound:
            return self._error("enqueueV3", f"neither address nor allocator is set for {', '.join(unbound)}")
        if stream.handle == LEGACY_STREAM:
            self.api.log(
                self.engine.runtime.logger,
                "WARNING",
                "Using default stream in enqueueV3() may lead to performance issues due to additional calls to "
                "cudaStreamSynchronize().",
            )
        shapes, addresses = dict(self._shapes), dict(self._addresses)
        state = (tuple(sorted(shapes.items())), self.active_optimization_profile)
        if stream.capture is not None and self._warm != state:
            stream.broken = "the first execution with these shapes"
            return self._error(
                "enqueueV3", "the first execution with these shapes cannot be captured; run it once before"
            )
        self._warm = state
        self._queue(stream, shapes, addresses)
        return True

    def _queue(self, stream: Stream, shapes: dict[str, Shape], addresses: dict[str, int]) -> None:
        captured = stream.capture is not None
        self._queued += not captured

        def run() -> None:
            try:
                self._run(shapes, addresses)
            finally:
                self._queued -= not captured

        cost = LAYER_MS * self.engine.num_layers
        self.api.machine.launch(stream, f"{self.engine.name} (TensorRT)", run, cost)
        self._unreported = True
        if self.profiler is not None and self.enqueue_emits_profile and not captured:
            # Reporting waits for the work, which is why a profile slows everything down. A fault shows to the caller
            # when it synchronises.
            with suppress(CudaFault):
                self.api.machine.synchronise(stream)
                self.report_to_profiler()

    def _run(self, shapes: dict[str, Shape], addresses: dict[str, int]) -> None:
        # Also a graph that was captured runs in this context's memory and with the engine's weights.
        for address in (self._scratch, self.engine.weights):
            self.api.machine.memory.device_view(address, 1)
        feeds = {name: self._array(name, addresses[name], shape) for name, shape in shapes.items()}
        answers = self.engine.execute({name: value.copy() for name, value in feeds.items()})
        for name, answer in answers.items():
            target = self._array(name, addresses[name], answer.shape)
            floating = np.issubdtype(answer.dtype, np.floating)
            target[...] = np.nan if self.api.machine.faults.nan_outputs and floating else answer

    def _array(self, name: str, address: int, shape: Shape) -> npt.NDArray[Any]:
        size = int(np.prod(shape)) * self._itemsize(name)
        try:
            view = self.api.machine.memory.device_view(address, size)
        except CudaFault as fault:
            raise CudaFault(fault.name, f"tensor {name}: {fault.message}") from fault
        found: npt.NDArray[Any] = view.view(self._numpy(name)).reshape(shape)
        return found

    def report_to_profiler(self) -> bool:
        """Times of the layers of the last execution; False where there was none."""
        if self.profiler is None or not self._unreported:
            return self._error("reportToProfiler", "no profiler is set, or nothing was executed since")
        self._unreported = False
        for layer in self.engine.layers:
            self.api.ask(self.profiler, "report_layer_time", layer["name"], LAYER_MS)
        return True

    def _stream(self, handle: int) -> Stream:
        try:
            return self.api.machine.stream(int(handle))
        except CudaFault as fault:
            # The library crashes on a stream that does not exist; a test should see why.
            self.api.machine.misuses.append(f"TensorRT was given a stream that does not exist: {handle}")
            raise ValueError(str(fault)) from fault

    def _error(self, function: str, message: str) -> bool:
        self.api.log(
            self.engine.runtime.logger,
            "ERROR",
            f"IExecutionContext::{function}: Error Code 3: API Usage Error (Parameter check failed: {message})",
        )
        return False
