"""A network and its maps as one ONNX graph, before and after its clean-up passes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import onnx
import torch
from torch import nn

from edgekit.attribution.spec import OWN_CLASS, MapSpec
from edgekit.core.progress import NULL_OBSERVER, Observer
from edgekit.export.batch import fix_batch
from edgekit.export.closed_form import closed_form
from edgekit.export.onnx_graph import onnx_from_trace
from edgekit.export.passes.protocol import PassReport
from edgekit.export.passes.runner import Check, clean_up
from edgekit.export.trace import trace
from edgekit.teacher.checkpoint import LoadedModel
from edgekit.teacher.explain import IMAGE_TAP, Differentiate, Explainer, map_spec, pulled_back
from edgekit.teacher.explainer import explainer_for
from edgekit.teacher.options import MapOptions
from edgekit.teacher.tap import Tap, forward_with_tap, head_from_tap

__all__ = ["ExplainedOnnx", "cleaned_onnx", "explained_onnx"]


@dataclass(frozen=True)
class ExplainedOnnx:
    """An explained graph and what it is.

    Attributes:
        model: The ONNX model.
        map_spec: What its maps mean.
        form: "closed form" or "traced gradient"; with several taps of both forms, which has which.
    """

    model: onnx.ModelProto
    map_spec: MapSpec
    form: str


def explained_onnx(loaded: LoadedModel, maps: MapOptions, *, use_closed_form: bool, opset: int) -> ExplainedOnnx:
    """Turn a loaded network into an explained ONNX graph.

    Args:
        loaded: The network.
        maps: Which maps the graph answers.
        use_closed_form: Use the closed form of gradients where the head is provably pooling and one linear layer.
        opset: ONNX operator set.

    Raises:
        BadInputError: No usable tap, control flow that depends on data, or an operation without ONNX form.
    """
    images, _ = arguments = _example(loaded.card.input.shape, maps.classes)
    explainer = explainer_for(loaded, maps, images)
    spec = map_spec(explainer, loaded.model, images, maps.classes)
    ways = tuple(_way(loaded.model, tap, explainer, images, use_closed_form) for tap in explainer.places)
    in_graph = replace(explainer, differentiate=ways)

    def answer(image: torch.Tensor, class_index: torch.Tensor) -> tuple[torch.Tensor, ...]:
        explained = in_graph(loaded.model, image, class_index)
        return (explained.logits, *explained.maps)

    graph = trace(answer, arguments, loaded.model)
    return ExplainedOnnx(
        model=onnx_from_trace(graph, arguments, spec.output_names, opset),
        map_spec=spec,
        form=_form(ways, explainer.places),
    )


def _example(shape: tuple[int, int, int], classes: int) -> tuple[torch.Tensor, torch.Tensor]:
    images = torch.rand((2, *shape), generator=torch.Generator().manual_seed(0))
    own = torch.full((2,) if classes == 1 else (2, classes), OWN_CLASS, dtype=torch.int32)
    return images, own


def _way(model: nn.Module, tap: Tap, explainer: Explainer, images: torch.Tensor, closed: bool) -> Differentiate:
    if not closed or tap is IMAGE_TAP:
        return pulled_back
    activation = forward_with_tap(model, tap, images).activation
    return closed_form(explainer.method, head_from_tap(model, tap, images), activation) or pulled_back


def _form(ways: Sequence[Differentiate], places: Sequence[Tap]) -> str:
    forms = ["traced gradient" if way is pulled_back else "closed form" for way in ways]
    if len(set(forms)) == 1:
        return forms[0]
    return ", ".join(f"{form} at {tap.name}" for form, tap in zip(forms, places, strict=True))


def cleaned_onnx(
    explained: ExplainedOnnx, check: Check, observer: Observer = NULL_OBSERVER, batch: int = 0
) -> tuple[ExplainedOnnx, tuple[PassReport, ...]]:
    """The graph after its clean-up passes, and what became of each.

    Args:
        explained: As `explained_onnx` made it.
        check: Run after every pass; see `clean_up`.
        observer: Is told of passes that were undone.
        batch: Fixes the graph's batch before the passes, so that they can make constants of what depends on it; 0
            leaves it dynamic.
    """
    model = fix_batch(explained.model, batch) if batch else explained.model
    cleaned = clean_up(model, check, observer)
    return replace(explained, model=cleaned.model), cleaned.reports
