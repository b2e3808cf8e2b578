"""What a build may tell an engine beyond its graph, and which engines listen.

Most engines take a graph as it is. Those that compile it, for one GPU in one power mode, are told how, and say what of
the machine their artifact depends on: both belong into the key of the stage that builds it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from edgekit.core.canonical import JsonValue
from edgekit.engines.protocol import Engine
from edgekit.engines.registry import ENGINES
from edgekit.engines.tensorrt.settings import TensorRtSettings

__all__ = ["ConditionedEngine", "RangesBeside", "TunableEngine", "Tuning", "conditions_of", "tuned_engine"]


@dataclass(frozen=True)
class RangesBeside:
    """INT8 without Q/DQ: the FP32 graph and the scale table that was made for it.

    The DLA of TensorRT 10.7 and before takes INT8 so, and no other way.

    Attributes:
        graph: The explained FP32 graph.
        scales: The scale table.
    """

    graph: Path
    scales: Path


@dataclass(frozen=True)
class Tuning:
    """How a candidate is built.

    Attributes:
        precision: "int8", "fp16" or "fp32": what the candidate is called.
        tensorrt: The recipe's section.
        ranges: What an engine may build in place of a Q/DQ graph; None for FP16 and FP32.
    """

    precision: str
    tensorrt: TensorRtSettings = field(default_factory=TensorRtSettings)
    ranges: RangesBeside | None = None

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form, without files: their digests stand elsewhere."""
        plain = {
            key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self.tensorrt).items()
        }
        return {"precision": self.precision, "tensorrt": plain}


@runtime_checkable
class TunableEngine(Protocol):
    """An engine that can be told how to build."""

    def tuned(self, tuning: Tuning) -> Engine:
        """The engine that builds so."""


@runtime_checkable
class ConditionedEngine(Protocol):
    """An engine whose artifact suits one machine alone."""

    def conditions(self) -> Mapping[str, JsonValue]:
        """What of this machine an artifact depends on: GPU, driver, release, power mode. Raises nothing."""


def tuned_engine(name: str, tuning: Tuning | None) -> Engine:
    """The engine of that name; where it listens and there is something to say, as it is told."""
    engine: Engine = ENGINES.load(name)
    if tuning is None or not isinstance(engine, TunableEngine):
        return engine
    return engine.tuned(tuning)


def conditions_of(name: str) -> dict[str, JsonValue]:
    """What of this machine an engine's artifact depends on; nothing where it runs anywhere."""
    engine: Engine = ENGINES.load(name)
    return dict(engine.conditions()) if isinstance(engine, ConditionedEngine) else {}
