"""What a recipe may say of TensorRT: what is no folder or device of one machine.

One section serves the engine 'tensorrt' here, the plan of a device, and what ONNX Runtime's TensorRT provider takes of
it. Source of the options: TensorRT's Python bindings 8.6 to 11.4, `IBuilderConfig`; none of them ran on a real one.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from typing import Any

from edgekit.engines.tensorrt.options import USUAL_BATCHES, BuildOptions
from edgekit.engines.tensorrt.running import RunOptions
from edgekit.errors import BadInputError

__all__ = ["TensorRtSettings"]

_OURS = ("batches", "timing_cache")
_ON_DLA = ("dla_core", "dla_sram", "dla_local_dram", "dla_global_dram")


@dataclass(frozen=True)
class TensorRtSettings:
    """How TensorRT builds and runs. The defaults suit an explained graph on the device that will run it.

    Attributes:
        typing: "strong": precision is what the graph's types say (TensorRT 10.12 and later); "weak": flags allow it
            (10.x and before); "auto": strong where the version knows nothing else or the graph carries FP16 types.
        float_type: What an INT8 engine may run in beside INT8: "fp16", "fp32", or "auto" for FP16.
        batches: Smallest, usual and largest batch of a graph that takes any; None for 1, 1, 16, and for 1, 1, 1 on the
            DLA, which runs one size.
        workspace: Bytes of scratch memory that kernels may use; 0 for a share of what is free.
        tactic_dram: Bytes that kernels may take while they are tried; 0 for what is free on a Jetson, and TensorRT's
            default elsewhere.
        optimisation_level: 0 to 5; None leaves TensorRT's own (3). Level 0 ignores the timing cache.
        aux_streams: Most further streams the engine may use, 0 to 128; None leaves TensorRT's heuristic.
        tactic_sources: Names of TensorRT's `TacticSource`; None leaves the default.
        sparsity: Use 2:4 sparse weights where they are.
        version_compatible: The plan runs on later TensorRT of the same major version.
        hardware_compatible: "same": other discrete GPUs of this compute capability; "ampere+": any of 8.0 and later;
            empty for this GPU alone.
        profiling_verbosity: "detailed", "layer_names_only" or "none". Only a detailed plan tells the precision of its
            layers; of others the evidence says that it is not told.
        timing_cache: Keep times of kernels for the next build on the same device, in the user's cache folder.
        time_limit_s: Seconds after which a build is ended with an error; 0 for no limit.
        tf32: Let FP32 be computed with TensorFloat-32, which keeps 10 bits of the fraction. Then what is called FP32 is
            none, and is verified so.
        dla_core: Run INT8 and FP16 engines on this DLA core; None for the GPU. FP32 engines run on the GPU.
        dla_fallback: Let the GPU run what the DLA cannot.
        dla_sram: Bytes of the DLA's own memory, a power of two from 4096; 0 leaves TensorRT's default (1 MiB).
        dla_local_dram: Bytes of memory between its operations; 0 for the default (1 GiB).
        dla_global_dram: Bytes of memory for its weights; 0 for the default (512 MiB).
        run: How the plan runs once it is built, in verification, in benchmarks and in use.
    """

    typing: str = "auto"
    float_type: str = "auto"
    batches: tuple[int, int, int] | None = None
    workspace: int = 0
    tactic_dram: int = 0
    optimisation_level: int | None = None
    aux_streams: int | None = None
    tactic_sources: tuple[str, ...] | None = None
    sparsity: bool = False
    version_compatible: bool = False
    hardware_compatible: str = ""
    profiling_verbosity: str = "detailed"
    timing_cache: bool = True
    time_limit_s: int = 7200
    tf32: bool = False
    dla_core: int | None = None
    dla_fallback: bool = True
    dla_sram: int = 0
    dla_local_dram: int = 0
    dla_global_dram: int = 0
    run: RunOptions = field(default_factory=RunOptions)

    def __post_init__(self) -> None:
        try:
            self.build_options("int8")
        except BadInputError as cause:
            # The same ranges, said in the words of whoever wrote the recipe.
            raise BadInputError(
                cause.message.replace(
                    "An option of the TensorRT build is out of range: ", "A recipe value is out of range: tensorrt."
                ),
                expected=cause.expected,
                found=cause.found,
                hint=cause.hint,
            ) from cause
        self._check_dla()

    def _check_dla(self) -> None:
        asked = [name for name in _ON_DLA[1:] if getattr(self, name)]
        if self.dla_core is None and asked:
            raise BadInputError(
                f"A recipe sets what only the DLA has: tensorrt.{asked[0]}.",
                expected="tensorrt.dla_core with it, or 0",
                found=f"tensorrt.{asked[0]} {getattr(self, asked[0])}, and no tensorrt.dla_core",
                hint="set tensorrt.dla_core to the number of a core, from 0",
            )
        if self.dla_core is not None and self.batches is not None and len(set(self.batches)) > 1:
            raise BadInputError(
                "The DLA runs one batch size only: tensorrt.batches.",
                expected="three times the same number, or none",
                found=str(list(self.batches)),
                hint="leave tensorrt.batches away for batches of one image",
            )

    @property
    def on_dla(self) -> bool:
        """The DLA is asked for."""
        return self.dla_core is not None

    def changed(self) -> dict[str, Any]:
        """What differs from the defaults, by the key that says it on a command line, such as "run.zero_copy"."""
        plain, mine = ({**asdict(each), **_flat("run", asdict(each.run))} for each in (TensorRtSettings(), self))
        return {key: value for key, value in mine.items() if key != "run" and value != plain[key]}

    def build_options(self, precision: str) -> BuildOptions:
        """The options of a build, without anything of one machine.

        Args:
            precision: "int8", "fp16" or "fp32": of the candidate. FP32 is what the others are measured against, so
                it is built for the GPU, whose FP32 it is; the DLA has none.
        """
        known = {item.name for item in fields(BuildOptions)}
        taken: dict[str, Any] = {name: value for name, value in vars(self).items() if name in known - set(_OURS)}
        if precision == "fp32":
            taken |= {"float_type": "fp32", **dict.fromkeys(_ON_DLA[1:], 0), "dla_core": None}
        elif precision == "fp16":
            taken["float_type"] = "fp16"
        one_size = taken["dla_core"] is not None
        return BuildOptions(batches=self.batches or ((1, 1, 1) if one_size else USUAL_BATCHES), **taken)


def _flat(section: str, values: dict[str, Any]) -> dict[str, Any]:
    return {f"{section}.{key}": value for key, value in values.items()}
