"""What the ONNX Runtime engines share: opening a session, checking its signature, running a batch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from edgekit.core.environment import processor_name
from edgekit.engines.asking import asked_classes, check_images, engine_output
from edgekit.engines.made_of import made_of
from edgekit.engines.onnx_artifact import check_signature, read_graph
from edgekit.engines.protocol import Availability, EngineInfo, EngineOutput
from edgekit.errors import BadInputError, IntegrityError, UnavailableError
from edgekit.interface.batches import batch_places, filled

if TYPE_CHECKING:
    import onnxruntime

__all__ = ["SessionRunner", "SessionSettings", "check_session", "onnxruntime_availability", "open_session"]

_ELEMENTS = {"tensor(float)": "float32", "tensor(int32)": "int32"}

# Rounds the float weights of an operation between integers, a whole tensor by one scale: what calibration left in float
# would be INT8 all the same, and not as any table says.
_UNASKED = ("WeightBiasQuantization",)


@dataclass(frozen=True)
class SessionSettings:
    """How a session is made.

    Attributes:
        engine: Name of the engine on whose behalf it is opened.
        optimise: False switches every graph optimisation off.
        threads: Intra-operator threads, 0 for the runtime's choice.
    """

    engine: str
    optimise: bool
    threads: int


def onnxruntime_availability() -> Availability:
    """Whether onnxruntime can be imported here."""
    try:
        import onnxruntime  # noqa: F401
    except ImportError as cause:
        return Availability(False, f"onnxruntime cannot be imported: {cause}", "pip install 'edgekit[cpu]'")
    return Availability(True)


def open_session(artifact: Path, settings: SessionSettings) -> SessionRunner:
    """Open an ONNX file and check that it is an explained graph.

    Raises:
        UnavailableError: onnxruntime is not here.
        BadInputError: There is no such file.
        IntegrityError: Not an ONNX model, or without the explained graph's inputs and outputs.
    """
    available = onnxruntime_availability()
    if not available.available:
        raise UnavailableError(
            f"The engine {settings.engine!r} cannot run here.", found=available.reason, hint=available.hint
        )
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = settings.threads
    level = ort.GraphOptimizationLevel
    options.graph_optimization_level = level.ORT_ENABLE_ALL if settings.optimise else level.ORT_DISABLE_ALL
    model = read_graph(artifact)
    try:
        session = ort.InferenceSession(
            model, options, providers=["CPUExecutionProvider"], disabled_optimizers=list(_UNASKED)
        )
    except Exception as cause:  # onnxruntime raises its own types that share no public base
        raise IntegrityError(
            "ONNX Runtime cannot open the engine.", where=str(artifact), found=str(cause).splitlines()[0]
        ) from cause
    check_session(session, artifact)
    info = EngineInfo(
        engine=settings.engine,
        runtime=f"onnxruntime {ort.__version__}",
        device=processor_name(),
        details={
            "providers": list(session.get_providers()),
            "graph_optimisation": settings.optimise,
            "threads": settings.threads,
            **made_of(session.get_modelmeta().custom_metadata_map),
        },
    )
    return SessionRunner(session, info)


def check_session(session: onnxruntime.InferenceSession, artifact: Path) -> None:
    """Raise `IntegrityError` unless the session's graph is an explained graph."""
    inputs = {value.name: _ELEMENTS.get(value.type, value.type) for value in session.get_inputs()}
    check_signature(inputs, [value.name for value in session.get_outputs()], artifact)


class SessionRunner:
    """A runner over one ONNX Runtime session. One of a fixed batch is run as often as the images need."""

    def __init__(self, session: Any, info: EngineInfo) -> None:
        self._session = session
        self._info = info
        shapes = {value.name: value.shape for value in session.get_inputs()}
        batch = shapes["image"][0]
        self._batch = batch if isinstance(batch, int) else None
        self._shape = tuple(shapes["image"][1:])
        self._columns = int(shapes["class_index"][1]) if len(shapes["class_index"]) == 2 else None
        self._outputs = [value.name for value in session.get_outputs()]

    @property
    def info(self) -> EngineInfo:
        """What is running."""
        return self._info

    @property
    def input_shapes(self) -> Mapping[str, tuple[int | str, ...]]:
        """Shape of each input; a name stands for a size that is free."""
        return {value.name: tuple(value.shape) for value in self._session.get_inputs()}

    def run(self, images: npt.NDArray[np.float32], class_index: npt.NDArray[np.int32]) -> EngineOutput:
        """Answer one batch; see `Runner.run`."""
        if self._session is None:
            raise BadInputError("The engine was closed before it was asked to run.")
        check_images(images, self._shape)
        asked = asked_classes(class_index, len(images), self._columns)
        parts = [self._part(images[place], asked[place]) for place in batch_places(len(images), self._batch)]
        return engine_output(parts, asked, self._columns)

    def _part(self, images: npt.NDArray[np.float32], asked: npt.NDArray[np.int32]) -> list[npt.NDArray[np.float32]]:
        """The session's outputs for no more images than it takes at a time."""
        fed = {"image": filled(images, self._batch), "class_index": filled(asked, self._batch)}
        try:
            return [output[: len(images)] for output in self._session.run(self._outputs, fed)]
        except Exception as cause:  # onnxruntime raises its own types that share no public base
            raise UnavailableError(
                "ONNX Runtime failed while running the engine.", found=str(cause).splitlines()[0]
            ) from cause

    def close(self) -> None:
        """Release the session."""
        self._session = None

    def __enter__(self) -> SessionRunner:
        """The runner itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the runner."""
        self.close()
