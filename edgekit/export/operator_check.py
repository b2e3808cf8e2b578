"""Can an engine's parser read this graph? Asked before hours are spent, and answered node by node."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import onnx
from onnx import TensorProto, shape_inference

from edgekit.errors import BadInputError
from edgekit.export.operator_rules import RULES, NodeContext
from edgekit.export.operator_table import OperatorTable, load_table, table_names
from edgekit.export.origin import MAP, module_of_node
from edgekit.export.passes.graph_index import GraphIndex, known_shapes

__all__ = ["OperatorProblem", "check_operators", "require_operators", "satisfied_versions"]

_TYPES = {
    TensorProto.FLOAT: "FP32",
    TensorProto.FLOAT16: "FP16",
    TensorProto.BFLOAT16: "BF16",
    TensorProto.DOUBLE: "DOUBLE",
    TensorProto.INT8: "INT8",
    TensorProto.UINT8: "UINT8",
    TensorProto.INT32: "INT32",
    TensorProto.INT64: "INT64",
    TensorProto.BOOL: "BOOL",
}
# The input whose type is meant by "supported types"; the first, but for these.
_TYPED_INPUT = {"Where": 1, "ConstantOfShape": None, "Constant": None}
_SHOWN = 5


@dataclass(frozen=True)
class OperatorProblem:
    """A node that an engine's parser cannot read.

    Attributes:
        op_type: The ONNX operator.
        node: Name of its first output.
        module: The module of the network it came from, or whose gradient it is; "map" for the explanation itself.
        why: What the table says against it.
        remedy: What to do.
    """

    op_type: str
    node: str
    module: str
    why: str
    remedy: str

    def __str__(self) -> str:
        where = "the map" if self.module == MAP else self.module
        return f"{self.op_type} in {where} ({self.node}): {self.why}"


def check_operators(model: onnx.ModelProto, table: OperatorTable) -> tuple[OperatorProblem, ...]:
    """What in `model` the engine of `table` cannot read, in the graph's order; empty where nothing stands against it.

    An operator that the table does not list counts as not supported: nothing is known of it.
    """
    return (*_opset_problems(model, table), *_node_problems(model, table))


def require_operators(model: onnx.ModelProto, table: OperatorTable) -> None:
    """Raise where the engine of `table` cannot read `model`.

    Raises:
        BadInputError: Names operators, modules, and what to do.
    """
    problems = check_operators(model, table)
    if not problems:
        return
    shown = "; ".join(str(problem) for problem in problems[:_SHOWN])
    more = f"; and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
    raise BadInputError(
        f"The explained graph holds what {_title(table)} cannot read.",
        expected=f"operators of its table ({table.name})",
        found=shown + more,
        hint="; ".join(dict.fromkeys(problem.remedy for problem in problems[:_SHOWN])),
    )


def satisfied_versions(model: onnx.ModelProto, engine: str = "tensorrt") -> tuple[str, ...]:
    """The versions of `engine` whose tables `model` satisfies, oldest first."""
    tables = [load_table(name) for name in table_names()]
    return tuple(table.version for table in tables if table.engine == engine and not check_operators(model, table))


def _title(table: OperatorTable) -> str:
    return f"{'TensorRT' if table.engine == 'tensorrt' else table.engine} {table.version}"


def _opset_problems(model: onnx.ModelProto, table: OperatorTable) -> Iterator[OperatorProblem]:
    oldest, newest = table.opset
    for entry in model.opset_import:
        if entry.domain in {"", "ai.onnx"} and not oldest <= entry.version <= newest:
            yield OperatorProblem(
                op_type="opset",
                node="",
                module=MAP,
                why=f"the graph has operator set {entry.version}, {_title(table)} reads {oldest} to {newest}",
                remedy=f"export with opset {min(max(entry.version, oldest), newest)}",
            )


def _node_problems(model: onnx.ModelProto, table: OperatorTable) -> Iterator[OperatorProblem]:
    index, shapes, types = GraphIndex(model), known_shapes(model), _element_types(model)
    for node in model.graph.node:
        found = list(_against(NodeContext(node, index, shapes), types, table))
        for why, remedy in found:
            yield OperatorProblem(node.op_type, node.output[0], module_of_node(node), why, remedy)


def _against(context: NodeContext, types: dict[str, int], table: OperatorTable) -> Iterator[tuple[str, str]]:
    node = context.node
    line = table.operators.get(node.op_type) if node.domain in {"", "ai.onnx"} else None
    if line is None or not line.supported:
        said = "is not in the table" if line is None else "is not supported"
        replace = "the layer" if module_of_node(node) == MAP else f"the module {module_of_node(node)!r}"
        yield f"{said} of {_title(table)}", f"replace {replace} by one without {node.op_type}, or choose a newer target"
        return
    for restriction in line.restrictions:
        if not RULES[restriction.rule](context, restriction.arguments):
            yield restriction.text, f"change how {module_of_node(node)!r} uses {node.op_type}: {restriction.text}"
    place = _TYPED_INPUT.get(node.op_type, 0)
    name = None if place is None else context.given(place)
    if name is None or name not in types or not line.types:
        return
    element = _TYPES.get(types[name], TensorProto.DataType.Name(types[name]))
    element = table.cast_down.get(element, element)
    if element not in line.types:
        taken = ", ".join(line.types)
        yield f"the type {element} is not among {taken}", f"let {module_of_node(node)!r} compute in {taken}"


def _element_types(model: onnx.ModelProto) -> dict[str, int]:
    inferred = shape_inference.infer_shapes(model).graph
    found = {item.name: item.data_type for item in model.graph.initializer}
    for value in (*inferred.input, *inferred.value_info, *inferred.output):
        if value.type.tensor_type.elem_type:
            found[value.name] = value.type.tensor_type.elem_type
    return found
