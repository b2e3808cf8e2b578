"""A traced explanation as an ONNX model that is small, self-contained and the same every time."""

from __future__ import annotations

import contextlib
import io
import logging
import operator
import warnings
from collections.abc import Iterator, Sequence

import onnx
import torch
from torch import fx

from edgekit.errors import BadInputError, DefectError
from edgekit.export.module_names import module_of, outputs_of
from edgekit.export.opset import NATIVE_OPSET, OLDEST_OPSET, downgraded, opset_of
from edgekit.export.origin import MAP, module_of_node, set_origin
from edgekit.export.trace import NamedInputs

__all__ = ["BATCH", "INPUT_NAMES", "onnx_from_trace"]

INPUT_NAMES = ("image", "class_index")
BATCH = "batch"
_LARGEST_BATCH = 65536
_FX_NODE = "pkg.torch.onnx.fx_node"
_CONTROL_FLOW = frozenset({"If", "Loop", "Scan"})


def onnx_from_trace(
    graph: fx.GraphModule, arguments: tuple[torch.Tensor, torch.Tensor], maps: Sequence[str], opset: int
) -> onnx.ModelProto:
    """Write a traced explanation as ONNX with a dynamic batch.

    Args:
        graph: From `trace`, taking images and class_index and returning logits and maps.
        arguments: Example images float32 [N, 3, H, W], N at least 2, and class_index int32 [N] or [N, k].
        maps: Names of the outputs with maps.
        opset: ONNX operator set.

    Raises:
        BadInputError: An operation of the network has no ONNX form.
    """
    batch = torch.export.Dim(BATCH, min=1, max=_LARGEST_BATCH)
    named = NamedInputs(graph)
    with _quiet_exporter():
        try:
            program = torch.export.export(
                named, arguments, dynamic_shapes={"image": {0: batch}, "class_index": {0: batch}}
            )
            exported = torch.onnx.export(
                program,
                dynamo=True,
                input_names=list(INPUT_NAMES),
                output_names=["logits", *maps],
                opset_version=max(opset, NATIVE_OPSET),
                optimize=True,
                verbose=False,
            )
        except (RuntimeError, ValueError, torch.onnx.errors.OnnxExporterError) as cause:
            raise BadInputError("The network cannot be written as ONNX.", found=_root_message(cause)) from cause
    if exported is None or exported.exported_program is None:
        raise DefectError("The ONNX exporter returned nothing.")
    model = _cleaned(exported.model_proto, exported.exported_program.graph)
    if opset == OLDEST_OPSET:
        model = downgraded(model)
        onnx.checker.check_model(model, full_check=True)
    # The exporter goes on with what it has where it cannot convert.
    if opset_of(model) != opset:
        raise BadInputError(
            "The network cannot be written in the operator set that the target reads.",
            expected=f"operator set {opset}",
            found=f"operator set {opset_of(model)}",
            hint=f"operator sets from {OLDEST_OPSET} on can be written, as far as the installed onnxscript converts",
        )
    return model


@contextlib.contextmanager
def _quiet_exporter() -> Iterator[None]:
    """The exporter prints to standard output and warns about packages that are not needed; errors still raise."""
    exporter = logging.getLogger("torch.onnx")
    level = exporter.level
    exporter.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        exporter.setLevel(level)


def _root_message(cause: BaseException) -> str:
    """The first line of the innermost error: the exporter wraps it in pages of general advice."""
    while cause.__cause__ is not None:
        cause = cause.__cause__
    return (str(cause).strip() or type(cause).__name__).splitlines()[0]


def _cleaned(model: onnx.ModelProto, exported: fx.Graph) -> onnx.ModelProto:
    """Name the batch, and keep of the metadata the modules alone: the rest holds paths of the exporting machine."""
    found = model.graph.input[0].type.tensor_type.shape.dim[0].dim_param
    for value in (*model.graph.input, *model.graph.output, *model.graph.value_info):
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param and dim.dim_param == found:
                dim.dim_param = BATCH
    _read_batch_off_images(model)
    _name_modules(model, exported)
    for value in (*model.graph.input, *model.graph.output, *model.graph.value_info, *model.graph.initializer):
        value.ClearField("metadata_props")
        value.ClearField("doc_string")
    model.ClearField("metadata_props")
    model.graph.ClearField("metadata_props")
    model.doc_string, model.graph.doc_string = "", ""
    model.graph.name = "explained"
    model.producer_name, model.producer_version = "edgekit", ""
    onnx.checker.check_model(model, full_check=True)
    _refuse_control_flow(model)
    return model


def _read_batch_off_images(model: onnx.ModelProto) -> None:
    """Both inputs have the batch as their first size, and tracing remembers the one it saw last.

    Logits must not depend on `class_index`, not even on its size: what does counts as the map's branch.
    """
    image, class_index = INPUT_NAMES
    for node in model.graph.node:
        if node.op_type == "Shape" and node.input[0] == class_index:
            sizes = {item.name: item.i for item in node.attribute}
            rank = len(model.graph.input[1].type.tensor_type.shape.dim)
            if sizes.get("start", 0) == 0 and sizes.get("end", rank) == 1:
                del node.attribute[:]
                node.attribute.extend([onnx.helper.make_attribute("start", 0), onnx.helper.make_attribute("end", 1)])
                node.input[0] = image


def _name_modules(model: onnx.ModelProto, exported: fx.Graph) -> None:
    """Give each ONNX node the module that the operation it was written for came from."""
    modules = {node.name: module_of(node) for node in exported.nodes}
    outputs = {node.name: outputs_of(node) for node in exported.nodes}
    # Values are named after the operation, or after what takes the first of its results.
    results = {node.name: {node.name, f"{node.name}__0"} for node in exported.nodes}
    for node in exported.nodes:
        if node.target is operator.getitem and node.args[1] == 0:
            results[node.args[0].name].add(node.name)
    named = {name for onnx_node in model.graph.node for name in onnx_node.output}
    marked: set[str] = set()
    for onnx_node in reversed(model.graph.node):
        told = {entry.key: entry.value for entry in onnx_node.metadata_props}
        # The exporter keeps the operation as text, its name first: "%relu_3 : [num_users=2] = ...".
        name = told.get(_FX_NODE, "").removeprefix("%").split(" ")[0]
        onnx_node.ClearField("doc_string")
        # An operation may have become several nodes: its result is what is named so, or what comes last.
        own = results.get(name, set()) & named
        has_result = onnx_node.output[0] in own if own else name not in marked
        set_origin(onnx_node, modules.get(name, MAP), outputs.get(name, ()) if has_result else ())
        marked.add(name)


def _refuse_control_flow(model: onnx.ModelProto) -> None:
    found = sorted({node.op_type for node in model.graph.node} & _CONTROL_FLOW)
    if found:
        raise BadInputError(
            "The network's graph holds a loop or a branch, which engines run on the host or not at all.",
            expected="a graph without " + ", ".join(sorted(_CONTROL_FLOW)),
            found=", ".join(found),
            where=", ".join(
                sorted({module_of_node(node) for node in model.graph.node if node.op_type in _CONTROL_FLOW})
            ),
            hint="write the loop in the network out, with a number of steps that is known",
        )
