"""IBuilderConfig and IOptimizationProfile: what a build is asked for."""

from __future__ import annotations

from typing import Any

from fake_tensorrt.api import Api, Behaviour
from fake_tensorrt.network import Layer
from fake_tensorrt.timing_cache import TimingCache

__all__ = ["BuilderConfig", "OptimizationProfile"]

MIB = 1 << 20
DLA_LAYERS = ("ACTIVATION", "CONCATENATION", "CONVOLUTION", "DECONVOLUTION", "ELEMENTWISE", "POOLING")


class OptimizationProfile(Behaviour):
    """IOptimizationProfile."""

    public_name = "IOptimizationProfile"

    def __init__(self, api: Api) -> None:
        super().__init__(api)
        self.extra_memory_target = 0.0
        self.shapes: dict[str, tuple[tuple[int, ...], ...]] = {}

    def set_shape(self, tensor: str, minimum: Any, optimum: Any, maximum: Any) -> None:
        """Smallest, usual and largest shape of an input."""
        shapes = tuple(tuple(int(each) for each in shape) for shape in (minimum, optimum, maximum))
        small, usual, large = shapes
        ordered = all(0 <= a <= b <= c for a, b, c in zip(small, usual, large, strict=False))
        if not len(small) == len(usual) == len(large) or not ordered:
            raise RuntimeError("Shape provided for min is inconsistent with other shapes.")
        self.shapes[tensor] = shapes

    def get_shape(self, tensor: str) -> list[Any]:
        """The three shapes of an input, or nothing."""
        return [self.api.dims(shape) for shape in self.shapes.get(tensor, ())]


class BuilderConfig(Behaviour):
    """IBuilderConfig."""

    public_name = "IBuilderConfig"

    def __init__(self, api: Api, logger: Any) -> None:
        super().__init__(api)
        self._logger = logger
        self.reset()

    def reset(self) -> None:
        """Everything as at first."""
        api = self.api
        self.flags = 0
        if api.has("BuilderFlag", "TF32"):
            self.set_flag(api.enum("BuilderFlag", "TF32"))
        self.quantization_flags = 0
        self.DLA_core = -1
        self.default_device_type = api.enum("DeviceType", "GPU")
        self.engine_capability = api.enum("EngineCapability", "STANDARD")
        self.profiling_verbosity = api.enum("ProfilingVerbosity", "LAYER_NAMES_ONLY")
        self.int8_calibrator: Any = None
        self.progress_monitor: Any = None
        self.avg_timing_iterations = 1
        self.max_num_tactics = -1
        self.profile_stream = 0
        self._level, self._aux_streams = 3, -1
        for attribute, kind, member in (
            ("hardware_compatibility_level", "HardwareCompatibilityLevel", "NONE"),
            ("runtime_platform", "RuntimePlatform", "SAME_AS_BUILD"),
            ("tiling_optimization_level", "TilingOptimizationLevel", "NONE"),
        ):
            setattr(self, attribute, api.enum(kind, member) if kind in api.classes else None)
        self.profiles: list[OptimizationProfile] = []
        self.timing_cache: TimingCache | None = None
        self._calibration_profile: OptimizationProfile | None = None
        self._devices: dict[str, Any] = {}
        self._preview: set[int] = set()
        sources = api.classes["TacticSource"].__members__
        self._tactics = (1 << len(sources)) - 1
        device = api.machine.device
        self._pools = {
            "WORKSPACE": device.memory,
            "DLA_MANAGED_SRAM": MIB,
            "DLA_LOCAL_DRAM": 1024 * MIB,
            "DLA_GLOBAL_DRAM": 512 * MIB,
            "TACTIC_DRAM": device.memory * 3 // 4 if device.integrated else device.memory,
            "TACTIC_SHARED_MEMORY": 1 << 30,
        }

    # Flags

    def set_flag(self, flag: Any) -> None:
        """Set a BuilderFlag."""
        self.flags |= 1 << int(flag)

    def clear_flag(self, flag: Any) -> None:
        """Clear a BuilderFlag."""
        self.flags &= ~(1 << int(flag))

    def get_flag(self, flag: Any) -> bool:
        """Whether a BuilderFlag is set."""
        return bool(self.flags >> int(flag) & 1)

    def asks_for(self, name: str) -> bool:
        """Whether a flag is set that this version may not know."""
        return self.api.has("BuilderFlag", name) and self.get_flag(self.api.enum("BuilderFlag", name))

    def flag_names(self) -> tuple[str, ...]:
        """The flags that are set."""
        return tuple(
            name for name, member in self.api.classes["BuilderFlag"].__members__.items() if self.get_flag(member)
        )

    def set_quantization_flag(self, flag: Any) -> None:
        """Set a QuantizationFlag."""
        self.quantization_flags |= 1 << int(flag)

    def clear_quantization_flag(self, flag: Any) -> None:
        """Clear a QuantizationFlag."""
        self.quantization_flags &= ~(1 << int(flag))

    def get_quantization_flag(self, flag: Any) -> bool:
        """Whether a QuantizationFlag is set."""
        return bool(self.quantization_flags >> int(flag) & 1)

    def set_preview_feature(self, feature: Any, enable: bool) -> None:
        """Turn a feature on or off."""
        (self._preview.add if enable else self._preview.discard)(int(feature))

    def get_preview_feature(self, feature: Any) -> bool:
        """Whether a feature is on."""
        return int(feature) in self._preview

    # Numbers

    @property
    def builder_optimization_level(self) -> int:
        """0 to 5."""
        return self._level

    @builder_optimization_level.setter
    def builder_optimization_level(self, value: int) -> None:
        if not 0 <= value <= 5:
            self._complain(f"builder_optimization_level {value} is not between 0 and 5")
            return
        self._level = int(value)

    @property
    def max_aux_streams(self) -> int:
        """-1 leaves it to the builder."""
        return self._aux_streams

    @max_aux_streams.setter
    def max_aux_streams(self, value: int) -> None:
        if value < 0:
            self._complain(f"max_aux_streams {value} is negative")
            return
        self._aux_streams = int(value)

    def set_memory_pool_limit(self, pool: Any, pool_size: int) -> None:
        """Bytes of a pool."""
        size = int(pool_size)
        sram = pool.name == "DLA_MANAGED_SRAM"
        if size < 0 or (sram and (size < 4096 or size & (size - 1))):
            self._complain(f"memory pool {pool.name} cannot have {size} bytes")
            return
        self._pools[pool.name] = size

    def pool_limits(self) -> dict[str, int]:
        """All pools, for whoever looks behind the public object."""
        return dict(self._pools)

    def get_memory_pool_limit(self, pool: Any) -> int:
        """Bytes of a pool."""
        return self._pools[pool.name]

    def set_tactic_sources(self, tactic_sources: int) -> bool:
        """A mask of TacticSource members."""
        known = sum(1 << int(each) for each in self.api.classes["TacticSource"].__members__.values())
        if int(tactic_sources) & ~known:
            self._complain(f"tactic sources {tactic_sources:#x} hold a bit that this version does not know")
            return False
        self._tactics = int(tactic_sources)
        return True

    def get_tactic_sources(self) -> int:
        """The mask."""
        return self._tactics

    # Profiles and timing

    @property
    def num_optimization_profiles(self) -> int:
        """Count of profiles."""
        return len(self.profiles)

    def add_optimization_profile(self, profile: OptimizationProfile) -> int:
        """Its index, or -1 where it says nothing."""
        if not profile.shapes:
            self._complain("the optimization profile sets no shape")
            return -1
        self.profiles.append(profile)
        return len(self.profiles) - 1

    def set_calibration_profile(self, profile: OptimizationProfile) -> bool:
        """Shapes for calibration."""
        self._calibration_profile = profile
        return True

    def get_calibration_profile(self) -> OptimizationProfile | None:
        """Shapes for calibration."""
        return self._calibration_profile

    def create_timing_cache(self, serialized_timing_cache: Any) -> TimingCache:
        """A cache from bytes; an empty one from no bytes."""
        return TimingCache(self.api, bytes(memoryview(serialized_timing_cache)), self._logger)

    def set_timing_cache(self, cache: TimingCache, ignore_mismatch: bool) -> bool:
        """Use a cache."""
        if not cache.fits and not ignore_mismatch:
            self.api.log(
                self._logger, "WARNING", "The timing cache is of another device or version. It will not be used."
            )
            return False
        self.timing_cache = cache
        return True

    def get_timing_cache(self) -> TimingCache | None:
        """The cache in use."""
        return self.timing_cache

    # DLA

    def can_run_on_DLA(self, layer: Layer) -> bool:  # noqa: N802 - the bindings' name
        """Whether a DLA takes a layer."""
        return bool(self.default_device_type == self.api.enum("DeviceType", "DLA")) and layer.type.name in DLA_LAYERS

    def set_device_type(self, layer: Layer, device_type: Any) -> None:
        """Where a layer runs."""
        self._devices[layer.name] = device_type

    def get_device_type(self, layer: Layer) -> Any:
        """Where a layer runs."""
        return self._devices.get(layer.name, self.default_device_type)

    def is_device_type_set(self, layer: Layer) -> bool:
        """Whether it was said where a layer runs."""
        return layer.name in self._devices

    def reset_device_type(self, layer: Layer) -> None:
        """Leave it to the default."""
        self._devices.pop(layer.name, None)

    def _complain(self, message: str) -> None:
        self.api.log(
            self._logger, "ERROR", f"IBuilderConfig: Error Code 3: API Usage Error (Parameter check failed: {message})"
        )
