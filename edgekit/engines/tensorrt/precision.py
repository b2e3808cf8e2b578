"""Which precision flags a build sets: decided from version, graph and options before TensorRT is asked for anything.

Until 10.x a network may be weakly typed: flags allow INT8 and FP16 and the builder chooses. From 10.12 on those flags
are deprecated, in 11.0 they are gone, and types come from the graph alone. Weakly typed FP8 was accepted and silently
built in FP32 on Thor (TensorRT issue 4590), so what was built is always inspected afterwards.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from edgekit.engines.tensorrt.binding import TensorRt
from edgekit.engines.tensorrt.dla import check_dla
from edgekit.engines.tensorrt.onnx_outline import OnnxOutline
from edgekit.engines.tensorrt.options import BuildOptions
from edgekit.errors import BadInputError, UnavailableError

__all__ = ["Precision", "choose_precision"]


@dataclass(frozen=True)
class Precision:
    """What is asked of the builder.

    Attributes:
        strong: The network is strongly typed.
        flags: Names of `BuilderFlag` that are set.
        cleared: Names of those that are on by default and cleared.
        calibrated: INT8 comes from a calibration cache, not from the graph.
        notes: What a reader of the result should know.
    """

    strong: bool
    flags: tuple[str, ...]
    cleared: tuple[str, ...]
    calibrated: bool
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in vars(self).items()}


def choose_precision(tensorrt: TensorRt, outline: OnnxOutline, options: BuildOptions, where: str) -> Precision:
    """Decide.

    Raises:
        BadInputError: The options contradict the graph.
        UnavailableError: This version cannot do what the options ask for.
    """
    calibrated = options.calibrated
    if calibrated:
        _check_calibration(tensorrt, outline, where)
    check_dla(tensorrt, outline, options, where)
    strong = _typing(tensorrt, outline, options)
    if strong:
        return _strong(outline, options, where)
    flags = ["INT8"] if outline.quantised or calibrated else []
    half = options.float_type == "fp16" or (options.float_type == "auto" and bool(flags or outline.typed))
    if options.dla_core is not None and not flags:
        # The DLA computes in INT8 and FP16 only.
        half = True
    notes = []
    if half:
        flags.append("FP16")
        notes.append("weakly typed: what is not INT8 may run in FP16 or FP32 as the builder chooses")
    # A candidate that is called fp32 must not be computed with ten bits of mantissa.
    cleared = () if half or options.tf32 else ("TF32",)
    return Precision(False, tuple(flags), cleared, calibrated, tuple(notes))


def _typing(tensorrt: TensorRt, outline: OnnxOutline, options: BuildOptions) -> bool:
    if tensorrt.always_strong:
        if options.typing == "weak":
            raise UnavailableError(
                "This TensorRT has no weakly typed networks.",
                expected="typing 'auto' or 'strong' from TensorRT 11 on",
                found=f"typing 'weak', TensorRT {tensorrt.text}",
                hint="write the precision into the graph: Q/DQ with FP16 types",
            )
        return True
    if options.typing == "strong":
        if not tensorrt.may_be_strong:
            raise UnavailableError(
                "Strongly typed networks are not used with this TensorRT.",
                expected="TensorRT 10.12 or later",
                found=f"TensorRT {tensorrt.text}",
                hint="leave typing at 'auto'",
            )
        return True
    return options.typing == "auto" and outline.typed and tensorrt.may_be_strong


def _strong(outline: OnnxOutline, options: BuildOptions, where: str) -> Precision:
    if options.float_type == "fp16" and not outline.typed:
        raise BadInputError(
            "The graph holds no FP16 types, and a strongly typed network computes in the types it has.",
            where=where,
            expected="an ONNX graph with FP16 initialisers and FP16 scales (opset 19 or later)",
            found="FP32 only",
            hint="calibration for TensorRT writes model.fp16.onnx beside model.onnx: keep the two together, or give it "
            "as half_graph; or leave float_type at 'auto' to build in FP32",
        )
    notes = ["strongly typed: every layer computes in the graph's own types"]
    if outline.quantised and not outline.typed:
        notes.append(
            "the graph's float types are FP32 and none with FP16 types lies beside it, so what is not INT8 runs in FP32"
        )
    return Precision(True, (), () if options.tf32 else ("TF32",), False, tuple(notes))


def _check_calibration(tensorrt: TensorRt, outline: OnnxOutline, where: str) -> None:
    if not tensorrt.may_calibrate:
        raise UnavailableError(
            "This TensorRT takes no calibration cache.",
            expected="TensorRT 10 or before",
            found=f"TensorRT {tensorrt.text}",
            hint="build the Q/DQ graph: its scales are the same",
        )
    if outline.quantised:
        raise BadInputError(
            "A graph with Q/DQ nodes has its scales; a calibration cache would be ignored or contradict them.",
            where=where,
            expected="the FP32 graph together with its scales",
            found="a graph with QuantizeLinear nodes",
            hint="give the FP32 explained graph, or leave the scales beside it away",
        )
