"""A traced explanation as an ONNX model that is small, self-contained and the same every time."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator, Sequence

import onnx
import torch
from torch import fx

from edgekit.errors import BadInputError, DefectError
from edgekit.export.fold import fold_batch_norm
from edgekit.export.trace import NamedInputs

__all__ = ["BATCH", "INPUT_NAMES", "onnx_from_trace"]

INPUT_NAMES = ("image", "class_index")
BATCH = "batch"
_LARGEST_BATCH = 65536


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
                opset_version=opset,
                optimize=True,
                verbose=False,
            )
        except (RuntimeError, ValueError, torch.onnx.errors.OnnxExporterError) as cause:
            raise BadInputError("The network cannot be written as ONNX.", found=_root_message(cause)) from cause
    if exported is None:
        raise DefectError("The ONNX exporter returned nothing.")
    return _cleaned(exported.model_proto)


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


def _cleaned(model: onnx.ModelProto) -> onnx.ModelProto:
    """Name the batch, fold normalisation, drop metadata: it holds stack traces with paths of the exporting machine."""
    found = model.graph.input[0].type.tensor_type.shape.dim[0].dim_param
    for value in (*model.graph.input, *model.graph.output, *model.graph.value_info):
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param and dim.dim_param == found:
                dim.dim_param = BATCH
    for node in model.graph.node:
        node.ClearField("metadata_props")
        node.ClearField("doc_string")
    for value in (*model.graph.input, *model.graph.output, *model.graph.value_info, *model.graph.initializer):
        value.ClearField("metadata_props")
        value.ClearField("doc_string")
    model.ClearField("metadata_props")
    model.graph.ClearField("metadata_props")
    model.doc_string, model.graph.doc_string = "", ""
    model.graph.name = "explained"
    model.producer_name, model.producer_version = "edgekit", ""
    fold_batch_norm(model)
    onnx.checker.check_model(model, full_check=True)
    return model
