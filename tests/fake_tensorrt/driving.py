"""The shortest correct use of the bindings, for tests of the fake: build a plan, open it, answer one batch."""

from __future__ import annotations

import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from fake_cuda.machine import FakeMachine

__all__ = ["Built", "Opened", "build", "listening_logger", "network_flags", "open_plan", "parse"]

Configure = Callable[[types.ModuleType, Any], None]


def listening_logger(trt: Any) -> Any:
    """A logger that keeps (severity, message) pairs in `lines`."""

    class Listening(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.lines: list[tuple[str, str]] = []

        def log(self, severity: Any, msg: str) -> None:
            self.lines.append((severity.name, msg))

        def text(self) -> str:
            """All of it."""
            return "\n".join(f"{severity}: {message}" for severity, message in self.lines)

    return Listening()


def network_flags(trt: Any, strongly_typed: bool = False) -> int:
    """What `create_network` has to be given in this version."""
    flags = trt.NetworkDefinitionCreationFlag
    if trt.__version__.startswith("8."):
        return 1 << int(flags.EXPLICIT_BATCH)
    return 1 << int(flags.STRONGLY_TYPED) if strongly_typed and not trt.__version__.startswith("11.") else 0


@dataclass
class Built:
    """Everything that takes part in a build; `plan` is None where it failed."""

    logger: Any
    builder: Any
    network: Any
    parser: Any
    config: Any
    plan: Any = None


def parse(trt: Any, model: onnx.ModelProto | bytes, strongly_typed: bool = False) -> tuple[Built, bool]:
    """A network of a graph, and whether the parser took it."""
    logger = listening_logger(trt)
    builder = trt.Builder(logger)
    network = builder.create_network(network_flags(trt, strongly_typed))
    parser = trt.OnnxParser(network, logger)
    accepted = parser.parse(model if isinstance(model, bytes) else model.SerializeToString())
    return Built(logger, builder, network, parser, builder.create_builder_config()), accepted


def build(
    trt: Any,
    model: onnx.ModelProto | bytes,
    configure: Configure | None = None,
    batches: tuple[int, int, int] = (1, 2, 4),
    strongly_typed: bool = False,
) -> Built:
    """A plan with one profile, weakly typed INT8 and FP16 where the version has that and the graph is quantised.

    Raises:
        AssertionError: The parser refuses the graph.
    """
    built, accepted = parse(trt, model, strongly_typed)
    assert accepted, built.logger.text()
    config, network = built.config, built.network
    quantised = any(network.get_layer(at).type == trt.LayerType.QUANTIZE for at in range(network.num_layers))
    if not strongly_typed and hasattr(trt.BuilderFlag, "INT8"):
        config.set_flag(trt.BuilderFlag.FP16)
        if quantised:
            config.set_flag(trt.BuilderFlag.INT8)
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    profile = built.builder.create_optimization_profile()
    for index in range(network.num_inputs):
        tensor = network.get_input(index)
        rest = tuple(tensor.shape)[1:]
        profile.set_shape(tensor.name, *((size, *rest) for size in batches))
    config.add_optimization_profile(profile)
    if configure is not None:
        configure(trt, config)
    built.plan = built.builder.build_serialized_network(network, config)
    return built


@dataclass
class Opened:
    """A plan ready to run, with device memory straight from the machine."""

    trt: Any
    machine: FakeMachine
    logger: Any
    runtime: Any
    engine: Any
    context: Any
    buffers: dict[str, int] = field(default_factory=dict)

    def names(self, mode: str) -> list[str]:
        """Names of inputs ("INPUT") or outputs ("OUTPUT")."""
        wanted = getattr(self.trt.TensorIOMode, mode)
        names = [self.engine.get_tensor_name(at) for at in range(self.engine.num_io_tensors)]
        return [name for name in names if self.engine.get_tensor_mode(name) == wanted]

    def dtype(self, name: str) -> Any:
        """NumPy's type of a tensor."""
        return np.dtype(self.trt.nptype(self.engine.get_tensor_dtype(name)))

    def bind(self, feeds: Mapping[str, npt.NDArray[Any]]) -> None:
        """Set shapes and addresses, and put the inputs there."""
        for name in self.names("INPUT"):
            assert self.context.set_input_shape(name, feeds[name].shape), self.logger.text()
        for name in (*self.names("INPUT"), *self.names("OUTPUT")):
            shape = tuple(self.context.get_tensor_shape(name))
            size = int(np.prod(shape)) * self.dtype(name).itemsize
            self.buffers[name] = self.machine.memory.allocate(size, owner="test").address
            assert self.context.set_tensor_address(name, self.buffers[name])
            if name in feeds:
                data = np.ascontiguousarray(feeds[name], self.dtype(name))
                self.machine.memory.device_view(self.buffers[name], size)[:] = data.reshape(-1).view(np.uint8)

    def read(self, name: str) -> npt.NDArray[Any]:
        """An output as it is now."""
        shape = tuple(self.context.get_tensor_shape(name))
        size = int(np.prod(shape)) * self.dtype(name).itemsize
        data: npt.NDArray[Any] = self.machine.memory.device_view(self.buffers[name], size).copy()
        found: npt.NDArray[Any] = data.view(self.dtype(name)).reshape(shape)
        return found

    def run(self, feeds: Mapping[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
        """Answer one batch on a stream of its own."""
        self.bind(feeds)
        stream = self.machine.create_stream()
        assert self.context.execute_async_v3(stream.handle), self.logger.text()
        self.machine.synchronise(stream)
        self.machine.destroy_stream(stream.handle)
        return {name: self.read(name) for name in self.names("OUTPUT")}

    def close(self) -> None:
        """Give everything back in the right order."""
        for address in self.buffers.values():
            self.machine.memory.release(address)
        self.buffers.clear()
        self.context = None
        self.engine = None
        self.runtime = None


def open_plan(trt: Any, machine: FakeMachine, plan: Any) -> Opened:
    """A runtime, an engine and a context of a plan; the latter two None where it is no good."""
    logger = listening_logger(trt)
    runtime = trt.Runtime(logger)
    engine = runtime.deserialize_cuda_engine(plan)
    context = None if engine is None else engine.create_execution_context()
    return Opened(trt, machine, logger, runtime, engine, context)
