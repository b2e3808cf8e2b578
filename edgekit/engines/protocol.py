"""What every engine offers: to be built from an explained ONNX graph, and to be run.

An engine's graph has two inputs, `image` float32 [N, 3, H, W] and `class_index` int32 [N] (-1: the engine's own
top-1), and two outputs, `logits` float32 [N, classes] and `attribution` float32 [N, h, w]. A graph with maps of k
classes takes `class_index` int32 [N, k] (-1 in column j: its own answer of rank j) and answers [N, k, h, w]; a graph
with several taps has an output for each, `attribution`, `attribution_2` and so on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from edgekit.core.progress import NULL_OBSERVER, Observer

__all__ = ["Availability", "Engine", "EngineInfo", "EngineOptions", "EngineOutput", "Runner"]


@dataclass(frozen=True)
class Availability:
    """Whether an engine can run here, and if not, why and what to do.

    Attributes:
        available: True when `open` would work for a sound artifact.
        reason: Empty when available.
        hint: The command or step that would make it available.
        note: What a user should know of an engine that is available, such as that nothing of it is proven.
    """

    available: bool
    reason: str = ""
    hint: str = ""
    note: str = ""


@dataclass(frozen=True)
class EngineOptions:
    """How an engine runs. Everything here can change latency, nothing may change meaning.

    Attributes:
        threads: Intra-operator threads; 0 leaves the choice to the runtime.
    """

    threads: int = 0


@dataclass(frozen=True)
class EngineOutput:
    """One batch of answers.

    Attributes:
        logits: float32 [N, classes].
        attribution: float32 [N, h, w], raw: the first tap's map of the first class.
        further: The other maps, float32 [N, h, w] each: tap by tap, and class by class within.
    """

    logits: npt.NDArray[np.float32]
    attribution: npt.NDArray[np.float32]
    further: tuple[npt.NDArray[np.float32], ...] = ()


@dataclass(frozen=True)
class EngineInfo:
    """What is running: engine name, runtime version, what it runs on, and further facts for the evidence."""

    engine: str
    runtime: str
    device: str
    details: Mapping[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        return {"engine": self.engine, "runtime": self.runtime, "device": self.device, "details": dict(self.details)}


class Runner(Protocol):
    """An opened engine. Not safe for use from several threads at once."""

    @property
    def info(self) -> EngineInfo:
        """What is running."""

    def run(self, images: npt.NDArray[np.float32], class_index: npt.NDArray[np.int32]) -> EngineOutput:
        """Answer one batch.

        Args:
            images: float32 [N, 3, H, W], prepared by `interface.preprocess`.
            class_index: int32 [N], or [N, k] for an engine with maps of k classes: -1 explains the engine's own
                answer, `NO_CLASS` none. An engine with maps of several classes that is given [N] explains its own
                answers besides.

        Raises:
            BadInputError: Shapes or dtypes differ from the engine's inputs.
            UnavailableError: The runtime failed while running.
        """

    def close(self) -> None:
        """Release the runtime's resources. May be called twice."""

    def __enter__(self) -> Runner:
        """The runner itself."""

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the runner."""


class Engine(Protocol):
    """One runtime: how to know it, build for it and open what was built."""

    @property
    def name(self) -> str:
        """Registry name, such as "ort-cpu"."""

    def availability(self) -> Availability:
        """Whether it can run here. Cheap, without side effects, never raises."""

    def build(self, graph: Path, artifact: Path, observer: Observer = NULL_OBSERVER) -> EngineInfo:
        """Turn an explained ONNX graph into the file that ships; `observer` is told of work that takes long.

        Raises:
            BadInputError: The graph cannot be built for this runtime.
            UnavailableError: The runtime is not here.
        """

    def open(self, artifact: Path, options: EngineOptions) -> Runner:
        """Open what `build` wrote.

        Raises:
            IntegrityError: The file is not an artifact of this engine.
            UnavailableError: The runtime is not here.
        """
