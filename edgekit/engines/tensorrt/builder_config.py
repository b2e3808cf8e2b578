"""The builder's settings: every option through names that this version has, and refused where it has none."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from edgekit.engines.tensorrt.binding import TensorRt
from edgekit.engines.tensorrt.dla import LARGEST_BATCH, LARGEST_SIDE, dla_pools
from edgekit.engines.tensorrt.memory import DeviceFacts
from edgekit.engines.tensorrt.memory_pools import MemoryPools
from edgekit.engines.tensorrt.network import NetworkShapes
from edgekit.engines.tensorrt.options import BuildOptions
from edgekit.engines.tensorrt.precision import Precision
from edgekit.engines.tensorrt.running import check_sharing
from edgekit.errors import BadInputError, UnavailableError

__all__ = ["BuildChoices", "check_options", "configure", "profile_batches"]

_HARDWARE = {"same": "SAME_COMPUTE_CAPABILITY", "ampere+": "AMPERE_PLUS"}


@dataclass(frozen=True)
class BuildChoices:
    """What was decided before TensorRT's configuration is written.

    Attributes:
        options: What the user asked for.
        precision: Typing and flags.
        pools: Memory limits.
        batches: Smallest, usual, largest batch; all the graph's own where that is fixed.
        free_batch: The profile has to say what N may be.
    """

    options: BuildOptions
    precision: Precision
    pools: MemoryPools
    batches: tuple[int, int, int]
    free_batch: bool


def profile_batches(shapes: NetworkShapes, options: BuildOptions, where: str) -> tuple[int, int, int]:
    """The batches that are built for.

    Raises:
        BadInputError: The DLA is asked for, and the batch is not one number that it takes, or the image is too large.
    """
    batches = options.batches if shapes.free_batch else (shapes.image[0],) * 3
    if options.dla_core is not None and (len(set(batches)) > 1 or batches[0] > LARGEST_BATCH):
        raise BadInputError(
            "The DLA runs one batch size only.",
            where=where,
            expected=f"batches (n, n, n) with n up to {LARGEST_BATCH}",
            found=str(batches),
            hint="give smallest, usual and largest batch the same number",
        )
    if options.dla_core is not None and max(shapes.image[1:]) > LARGEST_SIDE:
        raise BadInputError(
            "The image is too large for the DLA.",
            where=where,
            expected=f"up to {LARGEST_SIDE} on a side",
            found=str(list(shapes.image[1:])),
            hint="leave dla_core away: the GPU runs the whole network",
        )
    return batches


def check_options(tensorrt: TensorRt, builder: Any, device: DeviceFacts, options: BuildOptions) -> None:
    """Refuse what this version or device cannot do, before the minutes that a build takes.

    Raises:
        BadInputError: There is no such tactic source or DLA core, or the plan is to run on memory that is not shared.
        UnavailableError: The version lacks it, or the device does.
    """
    check_sharing(options.run, device, "tensorrt.run")
    needed = (
        (options.version_compatible, "BuilderFlag.VERSION_COMPATIBLE", "plans that fit later versions"),
        (options.optimisation_level is not None, "IBuilderConfig.builder_optimization_level", "optimisation levels"),
        (options.tactic_dram > 0, "MemoryPoolType.TACTIC_DRAM", "a limit of memory for kernels that are tried"),
        (options.aux_streams is not None, "IBuilderConfig.max_aux_streams", "a limit of streams"),
        (
            bool(options.hardware_compatible),
            f"HardwareCompatibilityLevel.{_HARDWARE.get(options.hardware_compatible, 'NONE')}",
            f"plans for other GPUs ({options.hardware_compatible})",
        ),
    )
    for asked, name, what in needed:
        if asked and not tensorrt.has(name):
            raise UnavailableError(
                f"This TensorRT does not know {what}.",
                expected=f"a version with {name}",
                found=f"TensorRT {tensorrt.text}",
                hint="leave the option away",
            )
    if options.hardware_compatible and (device.integrated or device.capability < (8, 0)):
        raise UnavailableError(
            "Plans for other GPUs are for discrete ones of compute capability 8.0 and later.",
            found=f"{device.name} (SM {device.sm}){', integrated' if device.integrated else ''}",
            hint="build on the device that runs the engine",
        )
    _check_tactic_sources(tensorrt, options)
    if options.dla_core is not None and options.dla_core >= builder.num_DLA_cores:
        raise UnavailableError(
            "This device has no such DLA core.",
            expected=f"a number below {builder.num_DLA_cores}" if builder.num_DLA_cores else "no dla_core",
            found=str(options.dla_core),
            hint="Orin Nano and Thor have no DLA; leave dla_core away",
        )


def configure(tensorrt: TensorRt, builder: Any, network: Any, config: Any, choices: BuildChoices) -> None:
    """Write the settings, but for calibrator, timing cache and progress, which have to be kept alive by the caller.

    Raises:
        BadInputError: TensorRT does not accept the profile.
    """
    module, options = tensorrt.module, choices.options
    for name in choices.precision.flags:
        config.set_flag(getattr(module.BuilderFlag, name))
    for name in choices.precision.cleared:
        config.clear_flag(getattr(module.BuilderFlag, name))
    for asked, name in (
        (options.sparsity, "SPARSE_WEIGHTS"),
        (options.version_compatible, "VERSION_COMPATIBLE"),
    ):
        if asked:
            config.set_flag(getattr(module.BuilderFlag, name))
    _write_numbers(tensorrt, config, choices)
    if choices.free_batch:
        _add_profile(builder, network, config, choices)


def _write_numbers(tensorrt: TensorRt, config: Any, choices: BuildChoices) -> None:
    module, options = tensorrt.module, choices.options
    # Detailed unless asked otherwise: only so layers can be mapped back to the graph, and the share of INT8 be told.
    config.profiling_verbosity = getattr(module.ProfilingVerbosity, options.profiling_verbosity.upper())
    pools = module.MemoryPoolType
    config.set_memory_pool_limit(pools.WORKSPACE, choices.pools.workspace)
    if choices.pools.tactic_dram is not None and tensorrt.has("MemoryPoolType.TACTIC_DRAM"):
        config.set_memory_pool_limit(pools.TACTIC_DRAM, choices.pools.tactic_dram)
    if options.optimisation_level is not None:
        config.builder_optimization_level = options.optimisation_level
    if options.aux_streams is not None:
        config.max_aux_streams = options.aux_streams
    if options.tactic_sources is not None:
        sources = (getattr(module.TacticSource, name) for name in options.tactic_sources)
        if not config.set_tactic_sources(sum(1 << int(source) for source in sources)):
            raise BadInputError(
                "TensorRT does not accept these tactic sources.", found=", ".join(options.tactic_sources)
            )
    if options.hardware_compatible:
        levels = module.HardwareCompatibilityLevel
        config.hardware_compatibility_level = getattr(levels, _HARDWARE[options.hardware_compatible])
    for name, size in dla_pools(options).items():
        config.set_memory_pool_limit(getattr(pools, name), size)


def _add_profile(builder: Any, network: Any, config: Any, choices: BuildChoices) -> None:
    profile = builder.create_optimization_profile()
    for index in range(network.num_inputs):
        tensor = network.get_input(index)
        rest = tuple(int(side) for side in tensor.shape)[1:]
        profile.set_shape(tensor.name, *((batch, *rest) for batch in choices.batches))
    added = config.add_optimization_profile(profile)
    if added < 0:
        raise BadInputError("TensorRT does not accept these batch sizes.", found=str(choices.batches))
    if choices.precision.calibrated:
        # Calibration has a shape of its own, and without one TensorRT refuses a free batch.
        config.set_calibration_profile(profile)


def _check_tactic_sources(tensorrt: TensorRt, options: BuildOptions) -> None:
    known = sorted(name for name in dir(tensorrt.module.TacticSource) if name.isupper())
    strange = [name for name in options.tactic_sources or () if name not in known]
    if strange:
        raise BadInputError(
            "There is no such tactic source in this TensorRT.",
            expected="of " + ", ".join(known),
            found=", ".join(strange),
        )
