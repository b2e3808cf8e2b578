"""The export stage: from a checkpoint to an explained ONNX graph that was checked against torch on real images."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import onnx
import torch

from edgekit.attribution.spec import MapSpec
from edgekit.core.canonical import JsonValue, write_json
from edgekit.core.digests import digest_bytes
from edgekit.core.files import write_bytes
from edgekit.core.progress import NULL_OBSERVER, Observer
from edgekit.core.stages import Stage, StageRecord, run_stage
from edgekit.errors import BadInputError
from edgekit.export.batch import fix_batch
from edgekit.export.closed_form import closed_form
from edgekit.export.onnx_graph import onnx_from_trace
from edgekit.export.operator_check import require_operators
from edgekit.export.operator_table import load_table
from edgekit.export.options import ExportOptions
from edgekit.export.parity import Parity, Truth, check_parity, compare, holds, truth_of
from edgekit.export.parting import first_parting
from edgekit.export.passes.protocol import PassReport
from edgekit.export.passes.runner import Check, clean_up
from edgekit.export.trace import trace
from edgekit.teacher.checkpoint import LoadedModel
from edgekit.teacher.explain import explain
from edgekit.teacher.load_options import LoadOptions
from edgekit.teacher.loading import load_model
from edgekit.teacher.methods.protocol import AttributionMethod
from edgekit.teacher.methods.registry import METHODS
from edgekit.teacher.tap import forward_with_tap, head_from_tap, resolve_tap

__all__ = [
    "GRAPH_NAME",
    "INTERFACE_NAME",
    "ExplainedOnnx",
    "ExportRequest",
    "ParityImages",
    "cleaned_onnx",
    "explained_onnx",
    "export",
]

GRAPH_NAME = "model.onnx"
INTERFACE_NAME = "interface.json"
_VERSION = 2


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
        operators: Name of the table of what the target's engine can run; None where there is no such table.
    """

    model: Path
    load: LoadOptions
    images: ParityImages
    opset: int
    options: ExportOptions
    operators: str | None = None


@dataclass(frozen=True)
class ExplainedOnnx:
    """An explained graph and what it is.

    Attributes:
        model: The ONNX model.
        map_spec: What its `attribution` output means.
        form: "closed form" or "traced gradient".
    """

    model: onnx.ModelProto
    map_spec: MapSpec
    form: str


def explained_onnx(
    loaded: LoadedModel, method: AttributionMethod, *, use_closed_form: bool, opset: int
) -> ExplainedOnnx:
    """Turn a loaded network into an explained ONNX graph.

    Raises:
        BadInputError: No usable tap, control flow that depends on data, or an operation without ONNX form.
    """
    generator = torch.Generator().manual_seed(0)
    images = torch.rand((2, *loaded.card.input.shape), generator=generator)
    own = torch.full((2,), -1, dtype=torch.int32)
    tap = resolve_tap(loaded.model, loaded.card.tap, images)
    activation = forward_with_tap(loaded.model, tap, images).activation
    closed = closed_form(method, head_from_tap(loaded.model, tap, images), activation) if use_closed_form else None
    in_graph: AttributionMethod = closed or method

    def answer(image: torch.Tensor, class_index: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        explained = explain(loaded.model, tap, in_graph, image, class_index)
        return explained.logits, explained.attribution

    graph = trace(answer, (images, own), loaded.model)
    height, width = (int(side) for side in activation.shape[2:])
    return ExplainedOnnx(
        model=onnx_from_trace(graph, images, own, opset),
        map_spec=MapSpec(method.name, tap, height, width, method.nonnegative),
        form="closed form" if closed else "traced gradient",
    )


def export(request: ExportRequest, destination: Path, observer: Observer = NULL_OBSERVER) -> StageRecord:
    """Write `model.onnx` and `interface.json` into `destination`, checked against torch.

    Raises:
        BadInputError: As `load_model` and `explained_onnx`; or the parity check failed, or had no image.
    """
    options: dict[str, JsonValue] = {
        "load": request.load.to_dict(),
        "opset": request.opset,
        "operators": request.operators,
        "torch": torch.__version__,
        "onnx": onnx.__version__,
        **asdict(request.options),
    }
    stage = Stage("export", _VERSION, options, {"model": request.model}, {"images": _digest(request.images)})
    return run_stage(stage, destination, lambda folder: _export(request, folder, observer), observer)


def _digest(images: ParityImages) -> str:
    return digest_bytes("\n".join(images.digests).encode())


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


def _export(request: ExportRequest, folder: Path, observer: Observer) -> dict[str, Any]:
    loaded = load_model(request.model, request.load)
    method = METHODS.load(request.options.method)
    options = request.options
    images = next(request.images.batches(options.parity_images), None)
    if images is None:
        raise BadInputError("The parity check needs at least one image.", hint="give images with --data")
    raw = explained_onnx(loaded, method, use_closed_form=options.closed_form, opset=request.opset)
    truth = truth_of(loaded.model, raw.map_spec.tap, method, images)
    graph_file = folder / GRAPH_NAME
    check = _Check(truth, graph_file, options)
    explained, passes = cleaned_onnx(raw, check, observer, options.batch)
    if request.operators is not None:
        require_operators(explained.model, load_table(request.operators))
    parity = check.parity(explained.model)
    worst = np.repeat(images[parity.worst : parity.worst + 1], max(options.batch, 1), axis=0)
    check_parity(
        parity,
        options.parity_tolerance,
        lambda: first_parting(loaded.model, explained.model, worst, options.parity_tolerance),
    )
    write_json(
        folder / INTERFACE_NAME,
        {"card": loaded.card.to_dict(), "map": explained.map_spec.to_dict(), "form": explained.form},
    )
    return {
        "form": explained.form,
        "parity": asdict(parity),
        "tolerance": options.parity_tolerance,
        "passes": [asdict(report) for report in passes],
        "nodes": len(explained.model.graph.node),
        "bytes": graph_file.stat().st_size,
        "summary": f"{explained.form}, parity {max(parity.logits, parity.attribution):.1e} on {parity.samples} images",
    }


class _Check:
    """Parity of a graph with what the network says on real images, through a file as an engine reads it."""

    def __init__(self, truth: Truth, graph_file: Path, options: ExportOptions) -> None:
        self._truth = truth
        self._file = graph_file
        self._options = options

    def parity(self, model: onnx.ModelProto) -> Parity:
        write_bytes(self._file, model.SerializeToString(deterministic=True))
        return compare(self._truth, self._file, self._options.batch)

    def __call__(self, model: onnx.ModelProto) -> str | None:
        parity = self.parity(model)
        if holds(parity, self._options.parity_tolerance):
            return None
        return f"logits off by {parity.logits:.1e}, maps by {parity.attribution:.1e} and {parity.own_class:.1e}"
