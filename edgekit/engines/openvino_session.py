"""OpenVINO's CPU plugin: compiling an explained graph with settings that change no meaning, and running batches."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from edgekit.core.environment import processor_name
from edgekit.engines.asking import asked_classes, check_images, engine_output
from edgekit.engines.made_of import made_of
from edgekit.engines.onnx_artifact import check_signature, read_graph
from edgekit.engines.openvino_faults import check_known_faults, version_problem
from edgekit.engines.protocol import Availability, EngineInfo, EngineOptions, EngineOutput
from edgekit.engines.tensorrt.onnx_outline import read_outline
from edgekit.errors import BadInputError, IntegrityError, UnavailableError
from edgekit.interface.batches import batch_places, filled

__all__ = ["OpenVinoRunner", "compile_settings", "open_graph", "openvino_availability"]

_INSTALL_HINT = "pip install 'edgekit[openvino]'"
_DEVICE = "CPU"


def openvino_availability() -> Availability:
    """Whether openvino can be imported here, and has its CPU plugin."""
    try:
        import openvino

        devices = list(openvino.Core().available_devices)
    except ImportError as cause:
        if cause.name == "openvino":
            return Availability(False, "openvino is not installed", _INSTALL_HINT)
        return Availability(False, f"openvino cannot be imported: {cause}", _INSTALL_HINT)
    except RuntimeError as cause:  # the loader of plugins raises nothing finer
        return Availability(False, f"openvino cannot be started: {_first_line(cause)}", _INSTALL_HINT)
    if _DEVICE not in devices:
        found = ", ".join(devices) or "no device"
        return Availability(False, f"openvino has no CPU plugin here, but {found}", _INSTALL_HINT)
    problem = version_problem(openvino.__version__)
    return Availability(False, problem, _INSTALL_HINT) if problem else Availability(True)


def compile_settings(options: EngineOptions) -> dict[str, str]:
    """Properties that the graph is compiled with, by OpenVINO's names."""
    settings = {
        # Where the processor has bfloat16, OpenVINO computes float operations in it unless told otherwise.
        "INFERENCE_PRECISION_HINT": "f32",
        "EXECUTION_MODE_HINT": "ACCURACY",
        # Would round activations of an operation that calibration left in float to INT8, as no scale table says.
        "DYNAMIC_QUANTIZATION_GROUP_SIZE": "0",
        # One request at a time on all threads, as every engine here is asked.
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": "1",
        # Engines that are timed in turns, each in a process of its own, would all be bound to the same cores.
        "ENABLE_CPU_PINNING": "NO",
    }
    if options.threads:
        settings["INFERENCE_NUM_THREADS"] = str(options.threads)
    return settings


def open_graph(artifact: Path, engine: str, options: EngineOptions) -> OpenVinoRunner:
    """Compile an ONNX file once it has shown that it is an explained graph.

    Args:
        artifact: The file.
        engine: Name of the engine on whose behalf it is opened.
        options: How it runs.

    Raises:
        UnavailableError: openvino is not here.
        BadInputError: There is no such file.
        IntegrityError: Not an ONNX model, without the explained graph's inputs and outputs, or computed wrongly or
            otherwise than asked for.
    """
    available = openvino_availability()
    if not available.available:
        raise UnavailableError(f"The engine {engine!r} cannot run here.", found=available.reason, hint=available.hint)
    import openvino

    data = read_graph(artifact)
    core = openvino.Core()
    try:
        model = core.read_model(data)
        _check_signature(model, artifact)
        check_known_faults(model, artifact)
        compiled = core.compile_model(model, _DEVICE, compile_settings(options))
    except RuntimeError as cause:
        raise IntegrityError(
            "OpenVINO cannot open the engine.", where=str(artifact), found=_first_line(cause)
        ) from cause
    info = EngineInfo(
        engine=engine,
        runtime=f"openvino {openvino.__version__.partition('-')[0]}",
        device=processor_name(),
        details={
            **_in_effect(compiled),
            "threads": options.threads,
            "build": openvino.__version__,
            # OpenVINO keeps no metadata of the file.
            **made_of(read_outline(data, str(artifact)).metadata),
        },
    )
    return OpenVinoRunner(compiled, info)


def _in_effect(compiled: Any) -> dict[str, Any]:
    """What the compiled graph says of itself, once that is what was asked for.

    Raises:
        IntegrityError: Floats are not computed in float32, or not on the processor.
    """
    precision = compiled.get_property("INFERENCE_PRECISION_HINT").to_string()
    devices = list(compiled.get_property("EXECUTION_DEVICES"))
    if precision != "f32" or devices != [_DEVICE]:
        raise IntegrityError(
            "OpenVINO computes otherwise than it was told to.",
            expected=f"f32 on {_DEVICE}",
            found=f"{precision} on {', '.join(devices)}",
            hint="name another engine with --engine",
        )
    return {
        "devices": devices,
        "inference_precision": precision,
        "inference_threads": int(compiled.get_property("INFERENCE_NUM_THREADS")),
        "dynamic_quantisation_group": int(compiled.get_property("DYNAMIC_QUANTIZATION_GROUP_SIZE")),
    }


def _check_signature(model: Any, artifact: Path) -> None:
    def name(port: Any) -> str:
        # A port may have several names or none, and neither is an explained graph's.
        return "/".join(sorted(port.get_names()))

    elements = {"f32": "float32", "i32": "int32"}
    inputs = {}
    for port in model.inputs:
        element = port.get_element_type().to_string()
        inputs[name(port)] = elements.get(element, element)
    check_signature(inputs, [name(port) for port in model.outputs], artifact)


def _first_line(cause: Exception) -> str:
    """What a reader can use of OpenVINO's message: lines that name a source file of theirs say nothing to him."""
    lines = [line.strip() for line in str(cause).splitlines() if line.strip()]
    told = [line for line in lines if not line.startswith(("Exception from", "Check '"))]
    return (told or lines or [type(cause).__name__])[0]


class OpenVinoRunner:
    """A runner over one compiled graph. One of a fixed batch is run as often as the images need."""

    def __init__(self, compiled: Any, info: EngineInfo) -> None:
        self._request = compiled.create_infer_request()
        self._info = info
        shapes = {port.get_any_name(): port.partial_shape for port in compiled.inputs}
        image, classes = shapes["image"], shapes["class_index"]
        self._batch = image[0].get_length() if image[0].is_static else None
        self._shape = tuple(size.get_length() for size in list(image)[1:])
        self._columns = classes[1].get_length() if len(classes) == 2 else None
        self._outputs = len(compiled.outputs)

    @property
    def info(self) -> EngineInfo:
        """What is running."""
        return self._info

    def run(self, images: npt.NDArray[np.float32], class_index: npt.NDArray[np.int32]) -> EngineOutput:
        """Answer one batch; see `Runner.run`."""
        if self._request is None:
            raise BadInputError("The engine was closed before it was asked to run.")
        check_images(images, self._shape)
        asked = asked_classes(class_index, len(images), self._columns)
        parts = [self._part(images[place], asked[place]) for place in batch_places(len(images), self._batch)]
        return engine_output(parts, asked, self._columns)

    def _part(self, images: npt.NDArray[np.float32], asked: npt.NDArray[np.int32]) -> list[npt.NDArray[np.float32]]:
        """The graph's outputs for no more images than it takes at a time."""
        fed = {
            "image": np.ascontiguousarray(filled(images, self._batch)),
            "class_index": np.ascontiguousarray(filled(asked, self._batch)),
        }
        try:
            # Inputs are read in place; outputs are copied, since the next run writes where they lie.
            found = self._request.infer(fed, share_inputs=True, share_outputs=False)
        except RuntimeError as cause:
            raise UnavailableError("OpenVINO failed while running the engine.", found=_first_line(cause)) from cause
        return [found[index][: len(images)] for index in range(self._outputs)]

    def close(self) -> None:
        """Release the compiled graph."""
        self._request = None

    def __enter__(self) -> OpenVinoRunner:
        """The runner itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the runner."""
        self.close()
