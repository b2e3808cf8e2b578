"""The export stage: from a checkpoint to an explained ONNX graph that was checked against torch on real images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import onnx
import torch
from torch import nn

from edgekit.attribution.spec import OWN_CLASS, MapSpec
from edgekit.core.canonical import JsonValue, write_json
from edgekit.core.digests import digest_bytes
from edgekit.core.files import write_bytes
from edgekit.core.progress import NULL_OBSERVER, Observer
from edgekit.core.stages import Stage, StageRecord, run_stage
from edgekit.errors import BadInputError
from edgekit.export.closed_form import closed_form
from edgekit.export.onnx_graph import onnx_from_trace
from edgekit.export.options import ExportOptions
from edgekit.export.parity import check_parity, measure_parity
from edgekit.export.trace import trace
from edgekit.teacher.checkpoint import LoadedModel
from edgekit.teacher.explain import IMAGE_TAP, Differentiate, Explainer, map_spec, pulled_back
from edgekit.teacher.explainer import explainer_for
from edgekit.teacher.load_options import LoadOptions
from edgekit.teacher.loading import load_model
from edgekit.teacher.options import MapOptions
from edgekit.teacher.tap import Tap, forward_with_tap, head_from_tap

__all__ = ["GRAPH_NAME", "INTERFACE_NAME", "ExplainedOnnx", "ExportRequest", "ParityImages", "explained_onnx", "export"]

GRAPH_NAME = "model.onnx"
INTERFACE_NAME = "interface.json"
_VERSION = 1


class ParityImages(Protocol):
    """Real images for the parity check, as network input."""

    @property
    def digests(self) -> tuple[str, ...]:
        """SHA-256 of each image."""

    def batches(self, batch_size: int) -> Iterator[npt.NDArray[np.float32]]:
        """Yield float32 [n, 3, H, W], n at most `batch_size`."""


@dataclass(frozen=True)
class ExportRequest:
    """What is exported.

    Attributes:
        model: Checkpoint of the network.
        load: How to load it.
        images: Real images for the parity check.
        opset: ONNX operator set the target reads.
        options: The recipe's.
    """

    model: Path
    load: LoadOptions
    images: ParityImages
    opset: int
    options: ExportOptions


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
    generator = torch.Generator().manual_seed(0)
    images = torch.rand((2, *loaded.card.input.shape), generator=generator)
    own = torch.full((2,) if maps.classes == 1 else (2, maps.classes), OWN_CLASS, dtype=torch.int32)
    explainer = explainer_for(loaded, maps, images)
    spec = map_spec(explainer, loaded.model, images, maps.classes)
    ways = tuple(_way(loaded.model, tap, explainer, images, use_closed_form) for tap in explainer.places)
    in_graph = replace(explainer, differentiate=ways)

    def answer(image: torch.Tensor, class_index: torch.Tensor) -> tuple[torch.Tensor, ...]:
        explained = in_graph(loaded.model, image, class_index)
        return (explained.logits, *explained.maps)

    graph = trace(answer, (images, own))
    return ExplainedOnnx(
        model=onnx_from_trace(graph, (images, own), spec.output_names, opset),
        map_spec=spec,
        form=_form(ways, explainer.places),
    )


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


def export(request: ExportRequest, destination: Path, observer: Observer = NULL_OBSERVER) -> StageRecord:
    """Write `model.onnx` and `interface.json` into `destination`, checked against torch.

    Raises:
        BadInputError: As `load_model` and `explained_onnx`; or the parity check failed, or had no image.
    """
    options: dict[str, JsonValue] = {
        "load": request.load.to_dict(),
        "opset": request.opset,
        "torch": torch.__version__,
        "onnx": onnx.__version__,
        **asdict(request.options),
    }
    stage = Stage("export", _VERSION, options, {"model": request.model}, {"images": _digest(request.images)})
    return run_stage(stage, destination, lambda folder: _export(request, folder), observer)


def _digest(images: ParityImages) -> str:
    return digest_bytes("\n".join(images.digests).encode())


def _export(request: ExportRequest, folder: Path) -> dict[str, Any]:
    loaded = load_model(request.model, request.load)
    explained = explained_onnx(
        loaded, request.options.maps, use_closed_form=request.options.closed_form, opset=request.opset
    )
    graph_file = folder / GRAPH_NAME
    write_bytes(graph_file, explained.model.SerializeToString(deterministic=True))
    images = next(request.images.batches(request.options.parity_images), None)
    if images is None:
        raise BadInputError("The parity check needs at least one image.", hint="give images with --data")
    explainer = explainer_for(loaded, request.options.maps, torch.from_numpy(images[:2]))
    parity = measure_parity(loaded.model, explainer, graph_file, images, classes=request.options.classes)
    check_parity(parity, request.options.parity_tolerance)
    write_json(
        folder / INTERFACE_NAME,
        {"card": loaded.card.to_dict(), "map": explained.map_spec.to_dict(), "form": explained.form},
    )
    return {
        "form": explained.form,
        "parity": asdict(parity),
        "tolerance": request.options.parity_tolerance,
        "nodes": len(explained.model.graph.node),
        "bytes": graph_file.stat().st_size,
        "summary": f"{explained.form}, parity {max(parity.logits, parity.attribution):.1e} on {parity.samples} images",
    }
