"""What a precision budget is asked for."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from edgekit.calibrate.images import CalibrationImages
from edgekit.calibrate.options import CalibrateOptions
from edgekit.engines.tensorrt.settings import TensorRtSettings
from edgekit.interface.card import InputSpec
from edgekit.policy.policy import Policy
from edgekit.precision.options import BudgetOptions
from edgekit.precision.yardstick import Yardstick

__all__ = ["BudgetRequest", "EngineHere"]


@dataclass(frozen=True)
class EngineHere:
    """The engine that answers and is timed.

    Attributes:
        name: Registry name.
        of_target: It is the target's engine on a machine of the target's family. Otherwise answers stand for those of
            the Q/DQ graph, and latencies would say nothing about the target.
        told: Why it is not, in words.
    """

    name: str
    of_target: bool = True
    told: str = ""


@dataclass(frozen=True)
class BudgetRequest:
    """What is wanted.

    Attributes:
        graph: The explained FP32 graph, an ONNX file.
        images: Images for ranges; none of those that are judged.
        yardstick: What candidates are judged by.
        policy: What has to hold.
        number_format: Name of the target's number format.
        calibration: Method, parameters, and operations that stay in float in any case.
        input: How images become the network's input.
        engine: Who answers.
        options: How it is done.
        tensorrt: How TensorRT builds and runs candidates, as it will what ships.
        costs: A cost table's file, for engines that do not run here.
    """

    graph: Path
    images: CalibrationImages
    yardstick: Yardstick
    policy: Policy
    number_format: str
    calibration: CalibrateOptions
    input: InputSpec
    engine: EngineHere
    options: BudgetOptions = field(default_factory=BudgetOptions)
    tensorrt: TensorRtSettings = field(default_factory=TensorRtSettings)
    costs: Path | None = None
