"""One plan on one device: everything that has to be freed, in the order in which it may be, and one run.

TensorRT's objects go before the memory they were given, and the context goes last; a runtime outlives its engines, an
engine its contexts, and the logger all of them.
"""

from __future__ import annotations

import math
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgekit.engines.tensorrt.binding import TensorRt
from edgekit.engines.tensorrt.buffers import BufferRequest, TensorBuffer, allocate_buffer
from edgekit.engines.tensorrt.graph_recording import GraphRecording
from edgekit.engines.tensorrt.memory import DeviceMemory
from edgekit.engines.tensorrt.messages import Messages, make_logger, plan_failure
from edgekit.engines.tensorrt.plan_file import PlanHeader
from edgekit.engines.tensorrt.signature import CLASS_INDEX, IMAGE, BatchRange, EngineSignature, engine_signature
from edgekit.errors import BadInputError, IntegrityError, UnavailableError

__all__ = ["GpuTimes", "LoadedPlan", "PlanSession", "load_plan", "session_signature"]


@dataclass(frozen=True)
class GpuTimes:
    """Time of one run on the GPU, by events in its stream, milliseconds. Waiting of the host is not in it.

    Attributes:
        copy_in_ms: Copies of the inputs; 0 or nearly so where memory is shared.
        compute_ms: The engine alone.
        copy_out_ms: Copies of the outputs.
    """

    copy_in_ms: float
    compute_ms: float
    copy_out_ms: float


class LoadedPlan:
    """TensorRT's objects for one plan, and the order in which they go.

    Attributes:
        engine: `ICudaEngine`.
        context: `IExecutionContext`.
        messages: What was logged.
    """

    def __init__(self, runtime: Any, engine: Any, logger: Any, messages: Messages) -> None:
        self._runtime = runtime
        self._logger = logger
        self.engine: Any = engine
        self.context: Any = None
        self.messages = messages

    def create_context(self, where: str) -> None:
        """Make what runs. Raises `UnavailableError` where there is too little memory for it."""
        self.context = self.engine.create_execution_context()
        if self.context is None:
            raise UnavailableError(
                "TensorRT could not prepare the engine to run.",
                where=where,
                expected="free device memory for the engine's weights and intermediate results",
                found=self.messages.summary("no reason was logged; most often there is too little device memory"),
                hint="close other programs; on a Jetson CPU and GPU share their memory",
            )

    def close(self) -> None:
        """Let go of everything, innermost first."""
        self.context = None
        self.engine = None
        self._runtime = None
        self._logger = None


def load_plan(tensorrt: TensorRt, header: PlanHeader, plan: bytes, where: str, here: str) -> LoadedPlan:
    """Give a plan that fits to TensorRT. The device must be active, and known to be sound.

    Raises:
        IntegrityError: TensorRT does not accept it.
        UnavailableError: TensorRT cannot work here, or says that the plan is for something else.
    """
    messages = Messages()
    logger = make_logger(tensorrt, messages)
    try:
        runtime = tensorrt.module.Runtime(logger)
    except TypeError as cause:  # what the bindings raise when the library answers with nothing
        raise UnavailableError(
            "TensorRT could not make a runtime.",
            where=where,
            expected=f"a runtime of {here}",
            found=messages.summary(str(cause)),
            hint="run 'edgekit doctor'; most often the NVIDIA driver is missing or too old",
        ) from cause
    if messages.errors:
        # A runtime that logged errors while it was made may end the process when it is used.
        raise plan_failure(messages, where, here)
    if header.dla_core is not None:
        if header.dla_core >= runtime.num_DLA_cores:
            raise UnavailableError(
                "The engine was built for a DLA core that is not here.",
                where=where,
                expected=f"DLA core {header.dla_core}",
                found=f"{runtime.num_DLA_cores} cores on {here}",
                hint="build it again on this device, without dla_core",
            )
        runtime.DLA_core = header.dla_core
    if header.version_compatible:
        # Such a plan carries code. Its digest was compared, and whoever opens it has chosen to trust the bundle.
        runtime.engine_host_code_allowed = True
    engine = runtime.deserialize_cuda_engine(plan)
    if engine is None:
        raise plan_failure(messages, where, here)
    return LoadedPlan(runtime, engine, logger, messages)


class PlanSession:
    """A plan that is ready to run. Used by one thread at a time.

    Args:
        memory: The opened device; the session closes it.
        loaded: The plan, with its context.
        signature: Its tensors.
        zero_copy: Host and device share the buffers.
        graphs: What may be recorded of the work, and what was.
    """

    def __init__(
        self,
        memory: DeviceMemory,
        loaded: LoadedPlan,
        signature: EngineSignature,
        *,
        zero_copy: bool,
        graphs: GraphRecording,
    ) -> None:
        self.memory = memory
        self.signature = signature
        self.times: GpuTimes | None = None
        self.graphs = graphs
        self._loaded: LoadedPlan | None = loaded
        self._resources = ExitStack()
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._profile = 0
        self._buffers: tuple[TensorBuffer, ...] = ()
        try:
            self._stream = memory.stream()
            self._resources.callback(self._stream.close)
            self._marks = []
            for _ in range(4):
                self._marks.append(memory.event())
                self._resources.callback(self._marks[-1].close)
            self._buffers = self._allocated(zero_copy)
        except BaseException:
            loaded.close()
            self._resources.close()
            raise

    def _allocated(self, zero_copy: bool) -> tuple[TensorBuffer, ...]:
        # The largest shapes of all profiles, as the context itself works them out.
        largest: dict[str, tuple[int, ...]] = {}
        for index in sorted(range(len(self.signature.profiles)), reverse=True):
            self._choose_profile(index)
            for name, shape in self._shaped(self.signature.profiles[index].largest).items():
                if math.prod(shape) > math.prod(largest.get(name, ())) or name not in largest:
                    largest[name] = shape
        dtypes = self.signature.dtypes
        buffers = tuple(
            allocate_buffer(
                self.memory,
                BufferRequest(name, name in (IMAGE, CLASS_INDEX), largest[name], dtypes[name], zero_copy),
                self._resources,
            )
            for name in dtypes
        )
        self._bind(buffers)
        return buffers

    def _bind(self, buffers: tuple[TensorBuffer, ...]) -> None:
        for buffer in buffers:
            if not self._context.set_tensor_address(buffer.name, buffer.address):
                raise UnavailableError(
                    "TensorRT refused the memory of a tensor.",
                    where=buffer.name,
                    expected="an address that it takes",
                    found=hex(buffer.address),
                    hint="rebuild the engine on this device",
                )

    @property
    def _context(self) -> Any:
        if self._loaded is None:
            raise BadInputError("The engine was closed before it was asked to run.")
        return self._loaded.context

    def profile_for(self, count: int) -> tuple[int, BatchRange]:
        """Number and range of the profile that runs `count` images, or as many of them as go at a time."""
        numbered = list(enumerate(self.signature.profiles))
        fitting = [item for item in numbered if count <= item[1].largest]
        if not fitting:
            return max(numbered, key=lambda item: item[1].largest)
        # The fewest images that are filled in, then kernels that were chosen for about as many.
        return min(fitting, key=lambda item: (max(count, item[1].smallest), abs(item[1].usual - count)))

    def run(
        self, images: npt.NDArray[np.float32], asked: npt.NDArray[np.int32], profile: int
    ) -> list[npt.NDArray[np.float32]]:
        """The outputs for a batch that the profile takes, logits first, in memory of their own.

        Raises:
            UnavailableError: TensorRT or the device failed.
        """
        with self.memory.active():
            if self._loaded is not None:
                # What is told of a failure is to be of this run.
                self._loaded.messages.errors.clear()
            self._choose_profile(profile)
            again = self._shapes.get(IMAGE) == images.shape
            if not again:
                self.graphs.drop()
                self._shapes = self._shaped(len(images))
            for buffer in self._buffers:
                if buffer.is_input:
                    buffer.fill(images if buffer.name == IMAGE else asked)
            self._queue(again)
            self._stream.synchronise()
            before, begun, done, after = self._marks
            self.times = GpuTimes(
                begun.milliseconds_since(before), done.milliseconds_since(begun), after.milliseconds_since(done)
            )
            views = {buffer.name: buffer.view(self._shapes[buffer.name]) for buffer in self._buffers}
            return [np.array(views[name]) for name in self.signature.outputs]

    def _queue(self, again: bool) -> None:
        before, begun, done, after = self._marks
        before.record(self._stream)
        for buffer in self._buffers:
            if buffer.is_input:
                buffer.queue_copy(self.memory, math.prod(self._shapes[buffer.name]), self._stream)
        begun.record(self._stream)
        self.graphs.do(self.memory, self._stream, self._enqueue, again=again)
        done.record(self._stream)
        for buffer in self._buffers:
            if not buffer.is_input:
                buffer.queue_copy(self.memory, math.prod(self._shapes[buffer.name]), self._stream)
        after.record(self._stream)

    def _enqueue(self) -> None:
        if not self._context.execute_async_v3(self._stream.handle):
            assert self._loaded is not None
            raise UnavailableError(
                "TensorRT failed while running the engine.",
                expected="answers for a batch that the engine takes",
                found=self._loaded.messages.summary("no reason was logged"),
                hint="rebuild the engine on this device; if it stays, run its graph with trtexec",
            )

    def _shaped(self, count: int) -> dict[str, tuple[int, ...]]:
        """Tell the context the batch size, and get the shapes of all tensors."""
        columns = self.signature.columns
        fed = {IMAGE: (count, *self.signature.image), CLASS_INDEX: (count,) if columns is None else (count, columns)}
        for name, shape in fed.items():
            if not self._context.set_input_shape(name, shape):
                raise BadInputError(
                    "A batch lies outside what the engine was built for.",
                    expected=", ".join(f"{each.smallest} to {each.largest} images" for each in self.signature.profiles),
                    found=f"{name} {list(shape)}",
                    hint="run fewer at a time, or set tensorrt.batches in the recipe and build again",
                )
        found = {
            name: tuple(int(side) for side in self._context.get_tensor_shape(name)) for name in self.signature.dtypes
        }
        free = [name for name, shape in found.items() if any(side < 0 for side in shape)]
        if free:
            raise IntegrityError("Outputs of the engine have no size of their own.", found=", ".join(free))
        return found

    def _choose_profile(self, index: int) -> None:
        if index == self._profile:
            return
        if not self._context.set_optimization_profile_async(index, self._stream.handle):
            raise UnavailableError(
                "TensorRT refused a profile of the engine.",
                expected=f"one of {len(self.signature.profiles)}",
                found=f"number {index}",
                hint="rebuild the engine on this device",
            )
        self._stream.synchronise()
        self._profile, self._shapes = index, {}
        self.graphs.drop()
        # Whether addresses outlive a change of profile is not documented.
        self._bind(self._buffers)

    def close(self) -> None:
        """Free everything. May be called twice."""
        if self._loaded is None:
            return
        loaded, self._loaded = self._loaded, None
        # After a failed launch the context is lost: nothing can be freed, and it must not hide what happened.
        with suppress(UnavailableError), self.memory.active():
            with suppress(UnavailableError):
                self.graphs.drop()
            loaded.close()
            self._resources.close()
        loaded.close()
        with suppress(UnavailableError):
            self.memory.close()


def session_signature(tensorrt: TensorRt, engine: Any, where: str) -> EngineSignature:
    """The engine's tensors. Raises `IntegrityError` where they are not those of an explained graph."""
    found = engine_signature(tensorrt, engine)
    if isinstance(found, str):
        raise IntegrityError(
            "The engine is not that of an explained graph.",
            where=where,
            expected="inputs image FLOAT [N, 3, H, W] and class_index INT32; outputs logits, attribution, ... FLOAT",
            found=found,
            hint="build it from what 'edgekit export' or 'edgekit build' wrote",
        )
    return found
