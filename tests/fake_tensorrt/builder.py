"""Builder: checks what the sources say a builder checks, and writes a plan or nothing."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from fake_cuda.errors import CudaFault

from fake_tensorrt.api import Api, Behaviour
from fake_tensorrt.calibration import calibrate
from fake_tensorrt.config import DLA_LAYERS, BuilderConfig, OptimizationProfile
from fake_tensorrt.fusion import EngineLayer, engine_layers
from fake_tensorrt.network import Network
from fake_tensorrt.plan import Plan, pack

__all__ = ["Builder"]

PRECISION_FLAGS = (
    *("INT8", "FP16", "BF16", "FP8", "INT4", "FP4"),
    *("OBEY_PRECISION_CONSTRAINTS", "PREFER_PRECISION_CONSTRAINTS"),
)
LAST_WITH_DLA = (10, 7)
FIRST_WITH_DLA_AGAIN = (11, 4, 1)


class Cancelled(Exception):  # noqa: N818 - no error: the caller asked for it
    """A progress monitor said stop."""


def dla_cores(api: Api) -> int:
    """Cores that this version can use on this device."""
    return api.machine.device.dla_cores if api.number <= LAST_WITH_DLA or takes_pairs_on_dla(api) else 0


def takes_pairs_on_dla(api: Api) -> bool:
    """Whether Q/DQ may run on the DLA: there was none for a while, and before none took them."""
    return tuple(int(part) for part in api.version.split(".")[:3]) >= FIRST_WITH_DLA_AGAIN


class Builder(Behaviour):
    """Builder."""

    public_name = "Builder"

    def __init__(self, api: Api, logger: Any) -> None:
        super().__init__(api)
        api.start(logger)
        self.logger = logger
        self.max_threads = 1
        device = api.machine.device
        self.num_DLA_cores = dla_cores(api)
        self.max_DLA_batch_size = 4096 if self.num_DLA_cores else 1
        self.platform_has_fast_fp16 = device.capability >= (5, 3)
        self.platform_has_fast_int8 = device.capability >= (6, 1)
        self.platform_has_tf32 = device.capability >= (8, 0)

    def reset(self) -> None:
        """As at first."""

    def create_network(self, flags: int) -> Network:
        """An empty network."""
        return Network(self.api, int(flags))

    def create_builder_config(self) -> BuilderConfig:
        """What to ask for."""
        return BuilderConfig(self.api, self.logger)

    def create_optimization_profile(self) -> OptimizationProfile:
        """Shapes to ask for."""
        return OptimizationProfile(self.api)

    def is_network_supported(self, network: Network, config: BuilderConfig) -> bool:
        """Whether a build would be tried."""
        return next(_problems(self, network, config), None) is None

    def build_serialized_network(self, network: Network, config: BuilderConfig, kernel_text: Any = None) -> Any:
        """The plan, or None with errors in the log."""
        try:
            self.api.touch()
        except CudaFault as fault:
            self._error(f"Error Code 1: Cuda Runtime ({fault})")
            return None
        for problem in _problems(self, network, config):
            self._error(f"Error Code 4: API Usage Error ({problem})")
            return None
        try:
            return self._build(network, config)
        except Cancelled:
            self._error("Error Code 11: Cancelled: the progress monitor ended the build")
            return None

    def _build(self, network: Network, config: BuilderConfig) -> Any:
        assert network.model is not None
        faults, memory = self.api.machine.faults, self.api.machine.memory
        wanted = faults.build_memory + 2 * network.model.ByteSize()
        if wanted > memory.free:
            self._error(f"Error Code 2: OutOfMemory (Requested size was {wanted} bytes.)")
            return None
        if config.int8_calibrator is not None and config.asks_for("INT8"):
            if network.quantised:
                self.api.log(self.logger, "WARNING", "Calibrator won't be used in explicit quantization mode.")
            elif not calibrate(self.api, config.int8_calibrator, network, self.logger):
                self._error("Error Code 2: Internal Error (Calibration failure)")
                return None
        layers = engine_layers(network, config)
        self._time(config, layers)
        if faults.build_fails:
            self._error(faults.build_fails)
            return None
        return self.api.host_memory(
            pack(Plan(self._header(network, config, layers), network.model.SerializeToString()))
        )

    def _time(self, config: BuilderConfig, layers: tuple[EngineLayer, ...]) -> None:
        faults, monitor = self.api.machine.faults, config.progress_monitor
        cache = config.timing_cache if config.builder_optimization_level > 0 else None
        if monitor is not None:
            self.api.ask(monitor, "phase_start", "Building Engine", None, 1)
            self.api.ask(monitor, "phase_start", "Computing profile costs", "Building Engine", len(layers))
        for index, layer in enumerate(layers):
            time.sleep(faults.hang_build / len(layers))
            if index < faults.skipped_tactics:
                self.api.log(
                    self.logger,
                    "WARNING",
                    f"Tactic Device request: 4229MB Available: {self.api.machine.memory.free >> 20}MB. Memory is "
                    f"insufficient to use tactic. Skipping tactic {index} of {layer.name}.",
                )
            if cache is not None and not config.asks_for("DISABLE_TIMING_CACHE"):
                cache.times.setdefault(f"{layer.kind}:{layer.precision}:{layer.name}", 0.01)
            if monitor is not None and not self.api.ask(monitor, "step_complete", "Computing profile costs", index):
                raise Cancelled
        if monitor is not None:
            self.api.ask(monitor, "phase_finish", "Computing profile costs")
            self.api.ask(monitor, "phase_finish", "Building Engine")

    def _header(self, network: Network, config: BuilderConfig, layers: tuple[EngineLayer, ...]) -> dict[str, Any]:
        device = self.api.machine.device
        level = config.hardware_compatibility_level  # type: ignore[attr-defined]
        return {
            "version": self.api.version,
            "capability": list(device.capability),
            "device": device.name,
            "name": network.name,
            "flags": list(config.flag_names()),
            "strongly_typed": network.strongly_typed,
            "parser_flags": list(network.parser_flags),
            "pools": config.pool_limits(),
            "hardware_compatibility_level": "NONE" if level is None else level.name,
            "profiling_verbosity": config.profiling_verbosity.name,
            "engine_capability": config.engine_capability.name,
            "tactic_sources": config.get_tactic_sources(),
            "aux_streams": max(config.max_aux_streams, 0),
            "dla_core": config.DLA_core if config.default_device_type.name == "DLA" else -1,
            "profiles": [
                {name: [list(shape) for shape in shapes] for name, shapes in profile.shapes.items()}
                for profile in config.profiles
            ],
            "tensors": [
                {"name": each.name, "mode": mode, "dtype": each.dtype.name, "shape": list(each.shape)}
                for mode, tensors in (("INPUT", network.inputs), ("OUTPUT", network.outputs))
                for each in tensors
            ],
            "layers": [vars(layer) for layer in layers],
        }

    def _error(self, message: str) -> None:
        self.api.log(self.logger, "ERROR", f"IBuilder::buildSerializedNetwork: {message}")


def _problems(builder: Builder, network: Network, config: BuilderConfig) -> Iterator[str]:
    if network.model is None or not network.outputs:
        yield "Network must have at least one output"
        return
    flags = [name for name in PRECISION_FLAGS if config.asks_for(name)]
    if network.strongly_typed:
        if flags:
            yield f"a strongly typed network takes no flags of precision: {', '.join(flags)}"
    else:
        types = {output.dtype.name for layer in network.layers for output in layer.outputs}
        types |= {tensor.dtype.name for tensor in network.inputs}
        if "HALF" in types and "FP16" not in flags:
            yield "the network has FP16 tensors, and the flag FP16 is not set"
        if network.quantised and "INT8" not in flags:
            yield "Q/DQ layers need the flag INT8 in a weakly typed network"
        ranges = any(output.dynamic_range for layer in network.layers for output in layer.outputs)
        if "INT8" in flags and not network.quantised and config.int8_calibrator is None and not ranges:
            yield "Calibrator is not being used. Users must provide dynamic range for all tensors that are not Int32"
    yield from _shape_problems(network, config)
    yield from _device_problems(builder, network, config, flags)


def _shape_problems(network: Network, config: BuilderConfig) -> Iterator[str]:
    dynamic = [tensor for tensor in network.inputs if -1 in tensor.shape]
    if dynamic and not config.profiles:
        yield "Network has dynamic or shape inputs, but no optimization profile has been defined."
    for index, profile in enumerate(config.profiles):
        for name in sorted(set(profile.shapes) - {tensor.name for tensor in network.inputs}):
            yield f"optimization profile {index} is about {name}, which is no input"
        for tensor in network.inputs:
            shapes = profile.shapes.get(tensor.name)
            if shapes is None and tensor in dynamic:
                yield f"optimization profile {index} is missing values for input {tensor.name}"
            for shape in shapes or ():
                fits = len(shape) == len(tensor.shape)
                fits = fits and all(fixed in (-1, size) for fixed, size in zip(tensor.shape, shape, strict=True))
                if not fits:
                    yield f"profile {index} gives {tensor.name} {shape}, the network has {tuple(tensor.shape)}"


def _device_problems(builder: Builder, network: Network, config: BuilderConfig, flags: list[str]) -> Iterator[str]:
    level = config.hardware_compatibility_level  # type: ignore[attr-defined]
    capability = builder.api.machine.device.capability
    if level is not None and level.name == "AMPERE_PLUS" and capability < (8, 0):
        yield f"hardware compatibility AMPERE_PLUS needs SM 8.0, this is {capability[0]}.{capability[1]}"
    if config.default_device_type.name != "DLA":
        return
    if not 0 <= config.DLA_core < builder.num_DLA_cores:
        yield f"DLA core {config.DLA_core} was asked for, there are {builder.num_DLA_cores}"
    if network.quantised and not takes_pairs_on_dla(builder.api):
        yield "DLA does not support Q/DQ layers"
    if not {"INT8", "FP16"} & set(flags) and not network.strongly_typed:
        yield "DLA runs in INT8 or FP16, and neither flag is set"
    for profile in config.profiles:
        if any(len(set(shapes)) > 1 for shapes in profile.shapes.values()):
            yield "DLA takes no dynamic shapes: min, opt and max must be equal"
    outside = [layer.name for layer in network.layers if layer.type.name not in DLA_LAYERS]
    if outside and not config.asks_for("GPU_FALLBACK"):
        yield f"layers that DLA does not run, and GPU_FALLBACK is not set: {', '.join(outside)}"
