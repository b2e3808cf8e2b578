"""The deep learning accelerator of Xavier and Orin: what it takes by version, and how builder and parser are told.

Sources: NVIDIA's support matrices and release notes (no DLA from 10.8 to 11.4.0), the names of the genuine bindings,
and the documents of its Deep-Learning-Accelerator-SW. No DLA has run anything of edgekit's.
"""

from __future__ import annotations

from typing import Any

from edgekit.engines.tensorrt.binding import TensorRt
from edgekit.engines.tensorrt.onnx_outline import OnnxOutline
from edgekit.engines.tensorrt.options import BuildOptions
from edgekit.errors import BadInputError, UnavailableError

__all__ = ["LARGEST_BATCH", "LARGEST_SIDE", "check_dla", "dla_pools", "parser_flags", "place_on_dla", "tell_parser"]

LARGEST_BATCH = 4096
LARGEST_SIDE = 8192
"""Of every dimension but the batch."""


def check_dla(tensorrt: TensorRt, outline: OnnxOutline, options: BuildOptions, where: str) -> None:
    """Refuse what this version's DLA does not take.

    Raises:
        BadInputError: A Q/DQ graph where scales come beside the graph.
        UnavailableError: This version does not build for DLA.
    """
    if options.dla_core is None:
        return
    if not (tensorrt.dla_by_cache or tensorrt.dla_by_graph):
        raise UnavailableError(
            "This TensorRT does not build for DLA.",
            expected="TensorRT 10.7 or before, or 11.4.1 or later",
            found=f"TensorRT {tensorrt.text}",
            hint="leave dla_core away: the GPU runs the whole network",
        )
    if tensorrt.dla_by_cache and outline.quantised:
        raise BadInputError(
            "The DLA of this TensorRT does not take Q/DQ graphs.",
            where=where,
            expected="the FP32 explained graph and a calibration cache with the same scales",
            found=f"a Q/DQ graph, TensorRT {tensorrt.text}",
            hint="build from the FP32 graph with its scales, or leave dla_core away",
        )


def place_on_dla(tensorrt: TensorRt, config: Any, options: BuildOptions) -> None:
    """Let everything that can run on the DLA run there. Before parsing: the parser may look at it."""
    if options.dla_core is None:
        return
    config.default_device_type = tensorrt.module.DeviceType.DLA
    config.DLA_core = options.dla_core
    if options.dla_fallback:
        config.set_flag(tensorrt.module.BuilderFlag.GPU_FALLBACK)


def parser_flags(tensorrt: TensorRt, options: BuildOptions) -> tuple[str, ...]:
    """Names of `OnnxParserFlag` that a build for DLA sets; none where DLA takes no Q/DQ, whatever the names.

    The graph is adjusted for the DLA, and where nothing may go to the GPU, the parser names each node that would have
    to. The flag for asymmetric integers is never set: our number format for TensorRT is symmetric.
    """
    if options.dla_core is None or not tensorrt.dla_by_graph:
        return ()
    wanted = ("ADJUST_FOR_DLA",) if options.dla_fallback else ("ADJUST_FOR_DLA", "REPORT_CAPABILITY_DLA")
    return tuple(name for name in wanted if tensorrt.has(f"OnnxParserFlag.{name}"))


def tell_parser(tensorrt: TensorRt, parser: Any, config: Any, flags: tuple[str, ...]) -> None:
    """Set the parser's flags, which mean something only together with the configuration.

    Raises:
        UnavailableError: The parser does not take the configuration.
    """
    if not flags:
        return
    if not parser.set_builder_config(config):
        raise UnavailableError(
            "TensorRT's parser does not take the configuration for DLA.",
            found=f"TensorRT {tensorrt.text}",
            hint="leave dla_core away: the GPU runs the whole network",
        )
    for name in flags:
        parser.set_flag(getattr(tensorrt.module.OnnxParserFlag, name))


def dla_pools(options: BuildOptions) -> dict[str, int]:
    """Name of `MemoryPoolType` to bytes, of the pools that were asked for; TensorRT's own are 1 MiB, 1 GiB, 512 MiB."""
    asked = {
        "DLA_MANAGED_SRAM": options.dla_sram,
        "DLA_LOCAL_DRAM": options.dla_local_dram,
        "DLA_GLOBAL_DRAM": options.dla_global_dram,
    }
    return {name: size for name, size in asked.items() if size and options.dla_core is not None}
