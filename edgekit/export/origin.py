"""Where an exported graph and its nodes came from: digests and names that ride in their `metadata_props`."""

from __future__ import annotations

import onnx

from edgekit.engines.made_of import STUDENT_KEY, TEACHER_KEY

__all__ = [
    "MAP",
    "MODULE_KEY",
    "OUTPUT_KEY",
    "module_of_node",
    "output_tensors",
    "outputs_of_node",
    "set_made_of",
    "set_origin",
]

MAP = "map"
"""What an operation is attributed to that belongs to no module: the explanation itself."""
MODULE_KEY = "edgekit.module"
"""Key of the module an operation, or the gradient of an operation, belongs to."""
OUTPUT_KEY = "edgekit.output"
"""Key of the modules, separated by spaces, whose output an operation computes."""


def module_of_node(node: onnx.NodeProto) -> str:
    """The module `node` came from, or `MAP`."""
    return next((entry.value for entry in node.metadata_props if entry.key == MODULE_KEY), MAP)


def outputs_of_node(node: onnx.NodeProto) -> tuple[str, ...]:
    """The modules whose output is the first result of `node`."""
    return tuple(name for entry in node.metadata_props if entry.key == OUTPUT_KEY for name in entry.value.split())


def set_origin(node: onnx.NodeProto, module: str, outputs: tuple[str, ...]) -> None:
    """Replace what is said of `node`."""
    node.ClearField("metadata_props")
    node.metadata_props.add(key=MODULE_KEY, value=module)
    if outputs:
        node.metadata_props.add(key=OUTPUT_KEY, value=" ".join(dict.fromkeys(outputs)))


def set_made_of(model: onnx.ModelProto, student: str, teacher: str) -> None:
    """Replace what is said of a graph: SHA-256 of its weights' file and of its teacher's, each left out where empty."""
    model.ClearField("metadata_props")
    for key, digest in ((STUDENT_KEY, student), (TEACHER_KEY, teacher)):
        if digest:
            model.metadata_props.add(key=key, value=digest)


def output_tensors(model: onnx.ModelProto) -> dict[str, str]:
    """Module to the tensor that is its output, in the order of the graph; of several calls the first."""
    found: dict[str, str] = {}
    for node in model.graph.node:
        for name in outputs_of_node(node):
            found.setdefault(name, node.output[0])
    return found
