"""What a person may choose of a build. The defaults are for an explained graph on the device that will run it."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from edgekit.engines.tensorrt.running import RunOptions
from edgekit.errors import BadInputError

__all__ = ["FLOAT_TYPES", "HARDWARE", "TYPINGS", "USUAL_BATCHES", "VERBOSITIES", "BuildOptions"]

TYPINGS = ("auto", "weak", "strong")
FLOAT_TYPES = ("auto", "fp32", "fp16")
HARDWARE = ("", "same", "ampere+")
VERBOSITIES = ("detailed", "layer_names_only", "none")
USUAL_BATCHES = (1, 1, 16)
"""Of a graph that takes any."""
_LARGEST_BATCH = 65536
_SMALLEST_SRAM = 4096


@dataclass(frozen=True)
class BuildOptions:
    """How a plan is built.

    Attributes:
        typing: "strong": precision is what the graph's types say; "weak": flags allow it, and the builder chooses;
            "auto": strong where the version knows nothing else or the graph carries FP16 types, else weak.
        float_type: What is not INT8 may run in, under weak typing: "auto" is FP16 for a quantised graph (NVIDIA's
            advice: otherwise the rest is slower than FP16 alone) and FP32, without TF32, for one that is not.
        batches: Smallest, usual and largest batch of the one optimisation profile; ignored for a graph of fixed batch.
        workspace: Bytes of scratch memory that kernels may use; 0 for a share of what is free.
        tactic_dram: Bytes that kernels may take while they are tried; 0 for what is free on a GPU that shares memory
            with its host, and for TensorRT's default elsewhere.
        optimisation_level: 0 to 5; None leaves TensorRT's own (3). Level 0 ignores the timing cache.
        aux_streams: Most further streams the engine may use; None leaves TensorRT's heuristic.
        tactic_sources: Names of `TacticSource`; None leaves the default.
        sparsity: Use 2:4 sparse weights where they are.
        version_compatible: The plan runs on later TensorRT of the same major version. Slower; it carries code.
        hardware_compatible: "same": other GPUs of this compute capability; "ampere+": any of 8.0 and later.
        profiling_verbosity: "detailed", "layer_names_only" or "none": what the engine tells of its layers.
        tf32: Let FP32 be computed with ten bits of mantissa.
        time_limit_s: Seconds after which the build is given up; 0 for no limit. See `limited_build`.
        timing_cache: Folder of timing caches; None for none.
        dla_core: Run on this DLA core; None for the GPU.
        dla_fallback: Let the GPU run what the DLA cannot.
        dla_sram: Bytes of the DLA's own memory, a power of two from 4096; 0 leaves TensorRT's default (1 MiB).
        dla_local_dram: Bytes of memory between its operations; 0 for the default (1 GiB).
        dla_global_dram: Bytes of memory for its weights; 0 for the default (512 MiB).
        calibration_cache: Scales for the implicit INT8 path of TensorRT 10 and before, as a file of TensorRT's own.
        scales: The same as a scale table of edgekit's; one of the two at most.
        half_graph: The same graph with FP16 types. It is built in place of the other where the network is strongly
            typed and `float_type` is not "fp32"; it must name the other's digest.
        memory: Name of the CUDA package, see `memory.MEMORIES`.
        device: Number of the GPU.
        run: How the plan will run. It is written into the plan's header, so that whoever opens it runs it so.
    """

    typing: str = "auto"
    float_type: str = "auto"
    batches: tuple[int, int, int] = USUAL_BATCHES
    workspace: int = 0
    tactic_dram: int = 0
    optimisation_level: int | None = None
    aux_streams: int | None = None
    tactic_sources: tuple[str, ...] | None = None
    sparsity: bool = False
    version_compatible: bool = False
    hardware_compatible: str = ""
    profiling_verbosity: str = "detailed"
    tf32: bool = False
    time_limit_s: int = 0
    timing_cache: Path | None = None
    dla_core: int | None = None
    dla_fallback: bool = True
    dla_sram: int = 0
    dla_local_dram: int = 0
    dla_global_dram: int = 0
    calibration_cache: Path | None = None
    scales: Path | None = None
    half_graph: Path | None = None
    memory: str = ""
    device: int = 0
    run: RunOptions = field(default_factory=RunOptions)

    def __post_init__(self) -> None:
        smallest, usual, largest = self.batches
        for holds, name, expected in (
            (self.typing in TYPINGS, "typing", " or ".join(TYPINGS)),
            (self.float_type in FLOAT_TYPES, "float_type", " or ".join(FLOAT_TYPES)),
            (self.hardware_compatible in HARDWARE, "hardware_compatible", " or ".join(map(repr, HARDWARE))),
            (1 <= smallest <= usual <= largest <= _LARGEST_BATCH, "batches", "1 <= smallest <= usual <= largest"),
            (self.optimisation_level in (None, 0, 1, 2, 3, 4, 5), "optimisation_level", "0 to 5"),
            (self.aux_streams is None or 0 <= self.aux_streams <= 128, "aux_streams", "0 to 128"),
            (self.workspace >= 0, "workspace", "bytes, or 0 for a share of what is free"),
            (self.tactic_dram >= 0, "tactic_dram", "bytes, or 0"),
            (self.profiling_verbosity in VERBOSITIES, "profiling_verbosity", " or ".join(VERBOSITIES)),
            (self.time_limit_s >= 0, "time_limit_s", "seconds, or 0 for no limit"),
            (self.dla_core is None or self.dla_core >= 0, "dla_core", "0 or above"),
            (
                self.dla_sram == 0 or (self.dla_sram >= _SMALLEST_SRAM and self.dla_sram.bit_count() == 1),
                "dla_sram",
                f"a power of two from {_SMALLEST_SRAM}, or 0",
            ),
            (self.dla_local_dram >= 0, "dla_local_dram", "bytes, or 0"),
            (self.dla_global_dram >= 0, "dla_global_dram", "bytes, or 0"),
            (self.scales is None or self.calibration_cache is None, "scales", "either scales or calibration_cache"),
        ):
            if not holds:
                raise BadInputError(
                    f"An option of the TensorRT build is out of range: {name}.",
                    expected=expected,
                    found=repr(getattr(self, name)),
                )

    @property
    def calibrated(self) -> bool:
        """INT8 comes from scales beside the graph, not from Q/DQ in it."""
        return self.calibration_cache is not None or self.scales is not None

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form, without folders: they are this machine's."""
        raw = asdict(self)
        raw["batches"] = list(self.batches)
        raw["tactic_sources"] = None if self.tactic_sources is None else list(self.tactic_sources)
        raw["timing_cache"] = self.timing_cache is not None
        raw["calibration_cache"] = self.calibration_cache is not None
        raw["scales"] = self.scales is not None
        raw["half_graph"] = self.half_graph is not None
        return raw
