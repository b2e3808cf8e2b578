"""EngineInspector: what an engine's layers are called and run in, in JSON that resembles the library's."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from fake_tensorrt.api import Api, Behaviour

if TYPE_CHECKING:
    from fake_tensorrt.engine import Engine

__all__ = ["EngineInspector"]

# How the library's reports spell the way tensors lie, one of several forms for each precision.
FORMATS = {
    "INT8": "Thirty-two wide channel vectorized row major Int8 format",
    "FP16": "Channel major FP16 format where channel % 8 == 0",
    "BF16": "Channel major BF16 format where channel % 8 == 0",
    "FP32": "Row major linear FP32",
    "INT32": "Row major Int32 format",
}
PARAMETERS = {"CaskConvolution": "Convolution", "Reformat": "Reformat", "PointWiseV2": "PointWise"}


class EngineInspector(Behaviour):
    """EngineInspector."""

    public_name = "EngineInspector"

    def __init__(self, api: Api, engine: Engine) -> None:
        super().__init__(api)
        self._engine = engine
        self.execution_context: Any = None

    def get_layer_information(self, layer_index: int, format: Any) -> str:  # noqa: A002 - the bindings' name
        """One layer."""
        if not 0 <= layer_index < self._engine.num_layers:
            self._engine.error(f"no layer {layer_index}")
            return ""
        told = self._told(self._engine.layers[layer_index])
        return json.dumps(told, indent=2) if format.name == "JSON" else _line(told)

    def get_engine_information(self, format: Any) -> str:  # noqa: A002 - the bindings' name
        """All layers, and the names of inputs and outputs."""
        told = [self._told(layer) for layer in self._engine.layers]
        if self._engine.profiling_verbosity.name == "NONE":
            told = []
        if format.name == "JSON":
            return json.dumps({"Layers": told, "Bindings": list(self._engine.tensors)}, indent=2)
        return "Layers:\n" + "\n".join(map(_line, told)) + "\n\nBindings:\n" + "\n".join(self._engine.tensors) + "\n"

    def _told(self, layer: dict[str, Any]) -> Any:
        if self._engine.profiling_verbosity.name != "DETAILED":
            return layer["name"]
        before = layer["precision"] if layer["kind"] != "Reformat" else "FP32"
        return {
            "Name": layer["name"],
            "LayerType": layer["kind"],
            "Inputs": [self._tensor(name, before) for name in layer["inputs"]],
            "Outputs": [self._tensor(name, layer["precision"]) for name in layer["outputs"]],
            "ParameterType": PARAMETERS.get(layer["kind"], layer["kind"]),
            "TacticName": "",
            "TacticValue": "0x0000000000000000",
            "StreamId": 0,
            "Metadata": layer["metadata"],
        }

    def _tensor(self, name: str, precision: str) -> dict[str, Any]:
        dimensions: list[int] = []
        known = self._engine.tensors.get(name)
        if known is not None:
            shape = self.execution_context.get_tensor_shape(name) if self.execution_context else known["shape"]
            dimensions = [int(each) for each in shape]
        return {"Name": name, "Location": "Device", "Dimensions": dimensions, "Format/Datatype": FORMATS[precision]}


def _line(told: Any) -> str:
    if isinstance(told, str):
        return told
    inputs, outputs = (
        ", ".join(f"{each['Name']}[{each['Format/Datatype']}]" for each in told[part]) for part in ("Inputs", "Outputs")
    )
    return f"{told['LayerType']}({told['Name']}) {inputs} -> {outputs}"
