"""The same build as a command line of NVIDIA's `trtexec`, so that others can repeat it without edgekit.

Text only; nothing here runs it. Its defaults differ between versions (11.0 turned data transfers off and CUDA graphs
on), so what is timed is spelt out. Source of the option names: NVIDIA's trtexec reference and its migration pages.
"""

from __future__ import annotations

import shlex

from edgekit.engines.tensorrt.binding import TensorRt
from edgekit.engines.tensorrt.builder_config import BuildChoices
from edgekit.engines.tensorrt.dla import dla_pools
from edgekit.engines.tensorrt.network import NetworkShapes
from edgekit.engines.tensorrt.options import BuildOptions
from edgekit.engines.tensorrt.signature import CLASS_INDEX, IMAGE

__all__ = ["trtexec_command"]

_MIB = 1 << 20
_DLA_POOLS = {"DLA_MANAGED_SRAM": "dlaSRAM", "DLA_LOCAL_DRAM": "dlaLocalDRAM", "DLA_GLOBAL_DRAM": "dlaGlobalDRAM"}
_HARDWARE = {"same": "sameComputeCapability", "ampere+": "ampere+"}


def trtexec_command(
    tensorrt: TensorRt,
    choices: BuildChoices,
    shapes: NetworkShapes,
    files: tuple[str, str] = ("model.onnx", "model.plan"),
) -> str:
    """One line, with `files` for the graph and the plan, which has no header of edgekit's.

    Pools of 0 bytes are sized by the device and left out.
    """
    options, precision = choices.options, choices.precision
    words = [
        "trtexec",
        f"--onnx={files[0]}",
        f"--saveEngine={files[1]}",
        f"--profilingVerbosity={options.profiling_verbosity}",
    ]
    # Since 8.6; what it was called before still works in 8.x.
    words.append("--skipInference" if tensorrt.version >= (8, 6, 0) else "--buildOnly")
    words += [f"--{name.lower()}" for name in precision.flags]
    if precision.strong and not tensorrt.always_strong:
        words.append("--stronglyTyped")
    if "TF32" in precision.cleared:
        words.append("--noTF32")
    if precision.calibrated:
        words.append(f"--calib={_cache_name(options)}")
    if choices.free_batch:
        rests = {IMAGE: shapes.image[1:], CLASS_INDEX: shapes.class_index[1:]}
        for kind, batch in zip(("min", "opt", "max"), choices.batches, strict=True):
            sized = (f"{name}:{'x'.join(map(str, (batch, *rest)))}" for name, rest in rests.items())
            words.append(f"--{kind}Shapes={','.join(sized)}")
    pools = [f"workspace:{choices.pools.workspace // _MIB}"] if choices.pools.workspace else []
    known = tensorrt.version >= (8, 6, 0) if tensorrt.module is None else tensorrt.has("MemoryPoolType.TACTIC_DRAM")
    if choices.pools.tactic_dram is not None and known:
        pools.append(f"tacticDRAM:{choices.pools.tactic_dram // _MIB}")
    pools += [f"{_DLA_POOLS[name]}:{size / _MIB:g}" for name, size in dla_pools(options).items()]
    if pools:
        words.append(f"--memPoolSize={','.join(pools)}")
    words += _further(choices)
    if options.dla_core is not None:
        words.append(f"--useDLACore={options.dla_core}")
        words += ["--allowGPUFallback"] if options.dla_fallback else []
    return shlex.join(words)


def _cache_name(options: BuildOptions) -> str:
    """A file beside the graph by its path, and any other by name: paths of one machine say nothing elsewhere."""
    path = options.calibration_cache
    return "calibration.cache" if path is None or path.is_absolute() else path.as_posix()


def _further(choices: BuildChoices) -> list[str]:
    options = choices.options
    words = []
    if options.optimisation_level is not None:
        words.append(f"--builderOptimizationLevel={options.optimisation_level}")
    if options.aux_streams is not None:
        words.append(f"--maxAuxStreams={options.aux_streams}")
    if options.tactic_sources is not None:
        # Named sources are switched on; the rest keeps its default there.
        words.append("--tacticSources=" + ",".join(f"+{name}" for name in options.tactic_sources))
    if options.sparsity:
        words.append("--sparsity=enable")
    if options.version_compatible:
        words.append("--versionCompatible")
    if options.hardware_compatible:
        words.append(f"--hardwareCompatibilityLevel={_HARDWARE[options.hardware_compatible]}")
    return words
