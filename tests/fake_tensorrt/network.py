"""Networks: tensors, layers, and the ONNX graph they were parsed from, which is what will be executed."""

from __future__ import annotations

from typing import Any, TypeVar

import onnx

from fake_tensorrt.api import Api, Behaviour

__all__ = ["LAYER_TYPES", "Layer", "Network", "Tensor", "data_type"]

Item = TypeVar("Item")

# What a parser makes of an operator; where it has several layers of an operator this is the one that does the work.
LAYER_TYPES = {
    "ACTIVATION": "Clip Elu HardSigmoid LeakyRelu Relu Selu Sigmoid Softplus Softsign Tanh ThresholdedRelu",
    "CONCATENATION": "Concat",
    "CONSTANT": "Constant ConstantOfShape",
    "CONVOLUTION": "Conv",
    "DECONVOLUTION": "ConvTranspose",
    "DEQUANTIZE": "DequantizeLinear",
    "EINSUM": "Einsum",
    "ELEMENTWISE": "Add And Div Equal Greater GreaterOrEqual Less LessOrEqual Max Min Mod Mul Or Pow Sub Sum Xor",
    "GATHER": "Gather GatherElements GatherND",
    "IDENTITY": "Identity",
    "LRN": "LRN",
    "MATRIX_MULTIPLY": "Gemm MatMul",
    "ONE_HOT": "OneHot",
    "POOLING": "AveragePool MaxPool",
    "QUANTIZE": "QuantizeLinear",
    "REDUCE": "GlobalAveragePool GlobalMaxPool ReduceL1 ReduceL2 ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum",
    "RESIZE": "Resize Upsample",
    "SCALE": "BatchNormalization",
    "SCATTER": "ScatterElements ScatterND",
    "SELECT": "Where",
    "SHAPE": "Shape Size",
    "SHUFFLE": "DepthToSpace Flatten Reshape SpaceToDepth Squeeze Transpose Unsqueeze",
    "SLICE": "Expand Pad Slice Split Tile",
    "SOFTMAX": "LogSoftmax Softmax",
    "TOPK": "ArgMax ArgMin TopK",
    "UNARY": "Abs Ceil Cos Erf Exp Floor IsInf Log Neg Not Reciprocal Round Sign Sin Sqrt Tan",
}
_TYPE_OF = {operator: kind for kind, operators in LAYER_TYPES.items() for operator in operators.split()}

_DATA_TYPES = {
    onnx.TensorProto.FLOAT: "FLOAT",
    onnx.TensorProto.FLOAT16: "HALF",
    onnx.TensorProto.BFLOAT16: "BF16",
    onnx.TensorProto.INT8: "INT8",
    onnx.TensorProto.UINT8: "UINT8",
    onnx.TensorProto.INT32: "INT32",
    onnx.TensorProto.INT64: "INT64",
    onnx.TensorProto.BOOL: "BOOL",
}


def data_type(api: Api, element: int) -> str | None:
    """This version's name of an ONNX element type, or None. Without INT64 it becomes INT32."""
    name = _DATA_TYPES.get(element)
    if name == "INT64" and not api.has("DataType", "INT64"):
        name = "INT32"
    return name if name is not None and api.has("DataType", name) else None


class Tensor(Behaviour):
    """ITensor."""

    public_name = "ITensor"

    def __init__(self, api: Api, name: str, dtype: str, dimensions: tuple[int, ...] | None, names: Any = ()) -> None:
        super().__init__(api)
        self.name = name
        self.dtype = api.enum("DataType", dtype)
        self.dimensions = dimensions
        self.dimension_names = tuple(names)
        self.location = api.enum("TensorLocation", "DEVICE")
        self.allowed_formats = (1 << len(api.classes["TensorFormat"].__members__)) - 1
        self.is_network_input = self.is_network_output = False
        self.is_execution_tensor, self.is_shape_tensor = True, False
        self.dynamic_range: Any = None

    @property
    def shape(self) -> Any:
        """Dimensions, -1 where they are dynamic."""
        return self.api.dims(self.dimensions or ())

    @shape.setter
    def shape(self, value: Any) -> None:
        self.dimensions = tuple(int(each) for each in value)

    def get_dimension_name(self, index: int) -> str:
        """Name of a dynamic dimension."""
        return str(self.dimension_names[index])

    def set_dynamic_range(self, minimum: float, maximum: float) -> bool:
        """Range of implicit quantisation."""
        self.dynamic_range = [minimum, maximum]
        return True

    def reset_dynamic_range(self) -> None:
        """No range."""
        self.dynamic_range = None


class Layer(Behaviour):
    """ILayer."""

    public_name = "ILayer"

    def __init__(self, api: Api, node: onnx.NodeProto, inputs: list[Tensor | None], outputs: list[Tensor]) -> None:
        super().__init__(api)
        kind = _TYPE_OF.get(node.op_type, "IDENTITY")
        if node.op_type == "Cast":
            kind = "CAST" if api.has("LayerType", "CAST") else "IDENTITY"
        self.node = node
        self.name = node.name
        self.type = api.enum("LayerType", kind)
        self.metadata = f"[ONNX Layer: {node.name}]"
        self.inputs, self.outputs = inputs, outputs
        self._precision: Any = None
        self._types: dict[int, Any] = {}

    @property
    def num_inputs(self) -> int:
        """Count of inputs."""
        return len(self.inputs)

    @property
    def num_outputs(self) -> int:
        """Count of outputs."""
        return len(self.outputs)

    def get_input(self, index: int) -> Tensor | None:
        """An input, or None where there is none."""
        return self.inputs[index] if 0 <= index < len(self.inputs) else None

    def get_output(self, index: int) -> Tensor | None:
        """An output, or None where there is none."""
        return self.outputs[index] if 0 <= index < len(self.outputs) else None

    @property
    def precision(self) -> Any:
        """Precision that was asked for, FLOAT where none was."""
        return self._precision or self.api.enum("DataType", "FLOAT")

    @precision.setter
    def precision(self, value: Any) -> None:
        self._precision = value

    @property
    def precision_is_set(self) -> bool:
        """A precision was asked for."""
        return self._precision is not None

    def reset_precision(self) -> None:
        """Ask for none."""
        self._precision = None

    def set_output_type(self, index: int, dtype: Any) -> None:
        """Ask for a type of an output."""
        self._types[index] = dtype

    def get_output_type(self, index: int) -> Any:
        """Type of an output."""
        return self._types.get(index, self.outputs[index].dtype)

    def output_type_is_set(self, index: int) -> bool:
        """A type was asked for."""
        return index in self._types

    def reset_output_type(self, index: int) -> None:
        """Ask for none."""
        self._types.pop(index, None)


class Network(Behaviour):
    """INetworkDefinition."""

    public_name = "INetworkDefinition"

    def __init__(self, api: Api, flags: int) -> None:
        super().__init__(api)
        self.name = "Unnamed Network 0"
        self.flags = flags
        self.inputs: list[Tensor] = []
        self.outputs: list[Tensor] = []
        self.layers: list[Layer] = []
        self.model: onnx.ModelProto | None = None
        self.parser_flags: tuple[str, ...] = ()

    def creation_flag(self, name: str) -> bool:
        """A flag that this version may not know."""
        members = self.api.classes["NetworkDefinitionCreationFlag"].__members__
        return name in members and bool(self.flags >> int(members[name]) & 1)

    @property
    def explicit_batch(self) -> bool:
        """The batch is a dimension; from 10.0 on it always is."""
        return self.api.number[0] >= 10 or self.creation_flag("EXPLICIT_BATCH")

    @property
    def strongly_typed(self) -> bool:
        """Types come from the graph; from 11.0 on they always do."""
        return self.api.number[0] >= 11 or self.creation_flag("STRONGLY_TYPED")

    @property
    def has_implicit_batch_dimension(self) -> bool:
        """The batch is no dimension."""
        return not self.explicit_batch

    @property
    def quantised(self) -> bool:
        """The graph says where it is quantised."""
        return any(layer.node.op_type in ("QuantizeLinear", "DequantizeLinear") for layer in self.layers)

    @property
    def num_inputs(self) -> int:
        """Count of inputs."""
        return len(self.inputs)

    @property
    def num_outputs(self) -> int:
        """Count of outputs."""
        return len(self.outputs)

    @property
    def num_layers(self) -> int:
        """Count of layers."""
        return len(self.layers)

    def get_flag(self, flag: Any) -> bool:
        """Whether a flag was given at creation."""
        return bool(self.flags >> int(flag) & 1)

    def get_input(self, index: int) -> Tensor | None:
        """An input, or None."""
        return _at(self.inputs, index)

    def get_output(self, index: int) -> Tensor | None:
        """An output, or None."""
        return _at(self.outputs, index)

    def get_layer(self, index: int) -> Layer | None:
        """A layer, or None."""
        return _at(self.layers, index)

    def mark_output(self, tensor: Tensor) -> None:
        """Make a tensor an output."""
        tensor.is_network_output = True
        if tensor not in self.outputs:
            self.outputs.append(tensor)

    def unmark_output(self, tensor: Tensor) -> None:
        """Make a tensor no output."""
        tensor.is_network_output = False
        self.outputs.remove(tensor)


def _at(items: list[Item], index: int) -> Item | None:
    return items[index] if 0 <= index < len(items) else None
