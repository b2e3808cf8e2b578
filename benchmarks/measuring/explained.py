"""A network's explained graphs: in both forms of the gradient, and quantised."""

from __future__ import annotations

from pathlib import Path

import onnx

from edgekit.calibrate.formats import number_format
from edgekit.calibrate.graph import read_graph
from edgekit.calibrate.options import CalibrateOptions
from edgekit.calibrate.stage import QuantisedGraph, quantise_graph
from edgekit.export.explained import ExplainedOnnx, cleaned_onnx, explained_onnx
from edgekit.images.views import PreparedImages
from edgekit.teacher.checkpoint import LoadedModel
from edgekit.teacher.options import MapOptions

__all__ = ["CLOSED", "MAPS", "TRACED", "explained_forms", "minmax_int8"]

MAPS = MapOptions()
CLOSED, TRACED = "closed form", "traced gradient"
_OPSET = 18


def explained_forms(loaded: LoadedModel) -> dict[str, ExplainedOnnx]:
    """The graphs by form: the one that a build would choose first, and the traced gradient where that is another.

    They went through the clean-up passes, as a build's do; what a build checks after every pass is checked of the
    result alone, where somebody asks for parity.
    """
    chosen = explained_onnx(loaded, MAPS, use_closed_form=True, opset=_OPSET)
    forms = {chosen.form: chosen}
    if chosen.form != TRACED:
        forms[TRACED] = explained_onnx(loaded, MAPS, use_closed_form=False, opset=_OPSET)
    return {form: cleaned_onnx(explained, _unchecked)[0] for form, explained in forms.items()}


def _unchecked(_model: onnx.ModelProto) -> None:
    """No objection."""


def minmax_int8(graph: Path, images: PreparedImages) -> QuantisedGraph:
    """The graph quantised for x86 (uint8 activations, int8 weights), ranges by min-max over all of `images`."""
    options = CalibrateOptions(method="minmax", images=len(images))
    return quantise_graph(read_graph(graph), images, number_format("x86-u8s8"), options)
