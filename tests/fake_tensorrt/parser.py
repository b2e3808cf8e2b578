"""OnnxParser: reads an ONNX graph into a network, or says why not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx

from fake_tensorrt.api import Api, Behaviour
from fake_tensorrt.network import LAYER_TYPES, Layer, Network, Tensor, data_type
from fake_tensorrt.rules import Refusal, newest_opset, refusals

__all__ = ["ParserError", "ParserOfOnnx"]


class ParserError(Behaviour):
    """ParserError: which node, what for."""

    public_name = "ParserError"

    def __init__(self, api: Api, refusal: Refusal, node: onnx.NodeProto | None) -> None:
        super().__init__(api)
        self._refusal, self._node = refusal, node

    def code(self) -> Any:
        """Kind of error."""
        return self.api.enum("ErrorCode", self._refusal.code)

    def desc(self) -> str:
        """The parser's words."""
        return self._refusal.message

    def file(self) -> str:
        """Source file of the parser."""
        return "ModelImporter.cpp"

    def func(self) -> str:
        """Function of the parser."""
        return self._refusal.function

    def line(self) -> int:
        """Line of the source file; the fake has none."""
        return 0

    def node(self) -> int:
        """Index of the node, -1 for the model as a whole."""
        return self._refusal.node

    def node_name(self) -> str:
        """Name of the node."""
        return "" if self._node is None else str(self._node.name)

    def node_operator(self) -> str:
        """Operator of the node."""
        return "" if self._node is None else str(self._node.op_type)

    def local_function_stack(self) -> list[str]:
        """Functions of the model around the node."""
        return []

    def local_function_stack_size(self) -> int:
        """Their count."""
        return 0


class ParserOfOnnx(Behaviour):
    """OnnxParser."""

    public_name = "OnnxParser"

    def __init__(self, api: Api, network: Network, logger: Any) -> None:
        super().__init__(api)
        self.flags = 0
        self._network, self._logger = network, logger
        self._errors: list[ParserError] = []
        self._config: Any = None

    @property
    def num_errors(self) -> int:
        """Count of errors of the last parse."""
        return len(self._errors)

    def get_error(self, index: int) -> ParserError:
        """One error."""
        return self._errors[index]

    def clear_errors(self) -> None:
        """Forget the errors."""
        self._errors.clear()

    def set_flag(self, flag: Any) -> None:
        """Set an OnnxParserFlag."""
        self.flags |= 1 << int(flag)

    def clear_flag(self, flag: Any) -> None:
        """Clear an OnnxParserFlag."""
        self.flags &= ~(1 << int(flag))

    def get_flag(self, flag: Any) -> bool:
        """Whether an OnnxParserFlag is set."""
        return bool(self.flags >> int(flag) & 1)

    def set_builder_config(self, builder_config: Any) -> bool:
        """Tell the parser what the network is for."""
        self._config = builder_config
        return True

    def get_used_vc_plugin_libraries(self) -> list[str]:
        """Plugins to ship with a version-compatible plan: the fake has none."""
        return []

    def supports_operator(self, op_name: str) -> bool:
        """Whether the parser knows an operator."""
        model = onnx.helper.make_model(onnx.helper.make_graph([onnx.helper.make_node(op_name, [], [])], "one", [], []))
        return op_name == "QuantizeLinear" or not any(
            each.code == "UNSUPPORTED_NODE" for each in refusals(model, self.api.number)
        )

    def parse_from_file(self, model: str) -> bool:
        """Parse a file."""
        try:
            data = Path(model).read_bytes()
        except OSError:
            return self._fail(Refusal(-1, "MODEL_DESERIALIZE_FAILED", "parseFromFile", f"Could not open file {model}"))
        return self._parse(data, Path(model).parent)

    def parse(self, model: Any, path: str | None = None) -> bool:
        """Parse bytes; `path` says beside which file external data lies."""
        return self._parse(bytes(memoryview(model)), None if path is None else Path(path).parent)

    def _parse(self, data: bytes, folder: Path | None) -> bool:
        if not self._network.explicit_batch:
            message = "This version of the ONNX parser only supports networks with an explicit batch dimension."
            return self._fail(Refusal(-1, "INVALID_VALUE", "parse", message))
        try:
            model = onnx.load_from_string(data)
            if folder is not None:
                onnx.load_external_data_for_model(model, str(folder))
            onnx.checker.check_model(model)
            typed = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
        except Exception as error:
            # onnx has no common family of errors, and the real parser answers all of them alike.
            return self._fail(
                Refusal(-1, "MODEL_DESERIALIZE_FAILED", "parse", f"Failed to parse the ONNX model: {error}")
            )
        if not self._knows_what_for():
            return False
        newest, used = newest_opset(self.api.number), max(each.version for each in model.opset_import)
        if used > newest:
            self.api.log(
                self._logger, "WARNING", f"The model has opset {used}; this parser is documented up to {newest}."
            )
        nodes = list(model.graph.node)
        injected = [Refusal(each.node, each.code, "injected", each.message) for each in self.api.machine.faults.parser]
        for refusal in injected or list(refusals(model, self.api.number)):
            self._fail(refusal, nodes[refusal.node])
        if self._errors:
            return False
        return self._read(model, typed)

    def _knows_what_for(self) -> bool:
        """Flags that speak of the DLA need a configuration that does."""
        members = self.api.classes["OnnxParserFlag"].__members__ if "OnnxParserFlag" in self.api.classes else {}
        names = tuple(name for name, member in members.items() if self.flags >> int(member) & 1)
        self._network.parser_flags = names
        speaking = [name for name in names if name in ("REPORT_CAPABILITY_DLA", "ADJUST_FOR_DLA")]
        if speaking and (self._config is None or self._config.default_device_type.name != "DLA"):
            message = f"{', '.join(speaking)} without a builder config whose default device is the DLA"
            return self._fail(Refusal(-1, "INVALID_VALUE", "parse", message))
        return True

    def _fail(self, refusal: Refusal, node: onnx.NodeProto | None = None) -> bool:
        error = ParserError(self.api, refusal, node)
        self._errors.append(error)
        where = "" if node is None else f"node {refusal.node} [{node.op_type}] ({node.name}): "
        self.api.log(self._logger, "ERROR", f"ModelImporter.cpp: {where}{refusal.code}: {refusal.message}")
        return False

    def _read(self, model: onnx.ModelProto, typed: onnx.ModelProto) -> bool:
        network, graph = self._network, model.graph
        known = {each.name: each for each in (*typed.graph.value_info, *typed.graph.input, *typed.graph.output)}
        stored = {each.name for each in graph.initializer}
        tensors: dict[str, Tensor] = {}
        for value in graph.input:
            if value.name not in stored:
                tensor = self._tensor(value)
                if tensor is None:
                    message = f"input {value.name} has a type that this version lacks"
                    return self._fail(Refusal(-1, "UNSUPPORTED_GRAPH", "importInput", message))
                tensor.is_network_input = True
                tensors[value.name] = tensor
                network.inputs.append(tensor)
        for index, node in enumerate(graph.node):
            made = []
            for name in node.output:
                value = known.get(name)
                tensor = Tensor(self.api, name, "FLOAT", None) if value is None else self._tensor(value)
                if tensor is None:
                    return self._fail(
                        Refusal(index, "UNSUPPORTED_NODE", "importNode", f"tensor {name} has a type unknown here"), node
                    )
                tensors[name] = tensor
                made.append(tensor)
            if node.op_type not in LAYER_TYPES["CONSTANT"].split():
                network.layers.append(self._layer(node, tensors, made, len(network.layers)))
        for value in graph.output:
            network.mark_output(tensors[value.name])
        network.model = model
        return True

    def _layer(self, node: onnx.NodeProto, tensors: dict[str, Tensor], made: list[Tensor], position: int) -> Layer:
        layer = Layer(self.api, node, [tensors.get(name) for name in node.input if name], made)
        if not node.name:
            layer.name = f"(Unnamed Layer* {position}) [{node.op_type}]"
        return layer

    def _tensor(self, value: onnx.ValueInfoProto) -> Tensor | None:
        kind = value.type.tensor_type
        dtype = data_type(self.api, kind.elem_type)
        if dtype is None:
            return None
        dimensions, names = [], []
        for each in kind.shape.dim:
            dimensions.append(each.dim_value if each.HasField("dim_value") else -1)
            names.append(each.dim_param)
        return Tensor(self.api, value.name, dtype, tuple(dimensions), names)
