"""Explained graphs of the tiny networks, each exported once in a test run, since one takes seconds."""

from __future__ import annotations

from functools import cache

from networks import CASES, Case
from torch import nn

from edgekit.export.explained import ExplainedOnnx, cleaned_onnx, explained_onnx
from edgekit.interface.card import InputSpec, ModelCard
from edgekit.teacher.checkpoint import LoadedModel
from edgekit.teacher.options import MapOptions

OPSET = 18
GRAD_CAM_ONLY = MapOptions()


def loaded(case: Case, tap: str | None, model: nn.Module | None = None) -> LoadedModel:
    """The case's network, or another in its place, with a card."""
    model = case.make() if model is None else model
    classes = int(model(case.images(2)).shape[1])
    card = ModelCard(InputSpec(*case.side), tuple(f"class {number}" for number in range(classes)), tap=tap)
    return LoadedModel(model, card, f"networks:{case.factory.__name__}", {}, None, "")


def export_afresh(
    name: str, tap: str | None, *, use_closed_form: bool = True, opset: int = OPSET, maps: MapOptions = GRAD_CAM_ONLY
) -> ExplainedOnnx:
    """Export a case's network, without looking whether that was done before."""
    raw = raw_export(name, tap, use_closed_form=use_closed_form, opset=opset, maps=maps)
    return cleaned_onnx(raw, lambda _model: None)[0]


def raw_export(
    name: str, tap: str | None, *, use_closed_form: bool = True, opset: int = OPSET, maps: MapOptions = GRAD_CAM_ONLY
) -> ExplainedOnnx:
    """As it is before the clean-up passes."""
    return explained_onnx(loaded(CASES[name], tap), maps, use_closed_form=use_closed_form, opset=opset)


@cache
def exported(name: str, tap: str) -> ExplainedOnnx:
    """A case's explained graph. Shared: copy its model before changing it."""
    return export_afresh(name, tap)
