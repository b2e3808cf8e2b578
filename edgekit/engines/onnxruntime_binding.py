"""A runner over a GPU session by IO binding: inputs are put on the device, outputs stay there until they are read."""

from __future__ import annotations

from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from edgekit.engines.asking import asked_classes, check_images, engine_output
from edgekit.engines.onnxruntime_gpu import DEVICE, gpu_failure
from edgekit.engines.protocol import EngineInfo, EngineOutput
from edgekit.errors import BadInputError
from edgekit.interface.batches import batch_places, filled

__all__ = ["BoundRunner"]

_MEMORY = "cuda"


class BoundRunner:
    """A runner over one session. A batch larger than the session takes is run in parts.

    Args:
        session: An open `onnxruntime.InferenceSession`.
        info: What is running.
        most: Images that a graph of any batch takes at a time; None for no limit.
    """

    def __init__(self, session: Any, info: EngineInfo, most: int | None = None) -> None:
        self._session = session
        self._binding = session.io_binding()
        self._info = info
        self._most = most
        shapes = {value.name: value.shape for value in session.get_inputs()}
        batch = shapes["image"][0]
        self._batch = batch if isinstance(batch, int) else None
        self._shape = tuple(shapes["image"][1:])
        self._columns = int(shapes["class_index"][1]) if len(shapes["class_index"]) == 2 else None
        self._outputs = [value.name for value in session.get_outputs()]
        # Inputs on the device, kept while batches have the same size.
        self._inputs: dict[str, Any] = {}

    @property
    def info(self) -> EngineInfo:
        """What is running."""
        return self._info

    def run(self, images: npt.NDArray[np.float32], class_index: npt.NDArray[np.int32]) -> EngineOutput:
        """Answer one batch; see `Runner.run`."""
        if self._session is None:
            raise BadInputError("The engine was closed before it was asked to run.")
        check_images(images, self._shape)
        asked = asked_classes(class_index, len(images), self._columns)
        places = batch_places(len(images), self._batch or self._most)
        return engine_output([self._part(images[place], asked[place]) for place in places], asked, self._columns)

    def _part(self, images: npt.NDArray[np.float32], asked: npt.NDArray[np.int32]) -> list[npt.NDArray[np.float32]]:
        """The session's outputs for no more images than it takes at a time."""
        fed: dict[str, npt.NDArray[Any]] = {
            "image": filled(images, self._batch),
            "class_index": filled(asked, self._batch),
        }
        try:
            for name, array in fed.items():
                self._binding.bind_ortvalue_input(name, self._on_device(name, np.ascontiguousarray(array)))
            for name in self._outputs:
                # Anew for every run: a bound output keeps the size of the last.
                self._binding.bind_output(name, _MEMORY, DEVICE)
            self._binding.synchronize_inputs()
            self._session.run_with_iobinding(self._binding)
            self._binding.synchronize_outputs()
            found = self._binding.copy_outputs_to_cpu()
        except Exception as cause:  # onnxruntime raises its own types that share no public base
            raise gpu_failure(self._info.engine, cause) from cause
        return [output[: len(images)] for output in found]

    def _on_device(self, name: str, array: npt.NDArray[Any]) -> Any:
        from onnxruntime import OrtValue

        value = self._inputs.get(name)
        if value is not None and list(value.shape()) == list(array.shape):
            value.update_inplace(array)
            return value
        self._inputs[name] = OrtValue.ortvalue_from_numpy(array, _MEMORY, DEVICE)
        return self._inputs[name]

    def close(self) -> None:
        """Release device memory and session, in this order."""
        self._inputs = {}
        self._binding = None
        self._session = None

    def __enter__(self) -> BoundRunner:
        """The runner itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the runner."""
        self.close()
