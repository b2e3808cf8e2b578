"""The export stage: from a checkpoint to an explained ONNX graph that was checked against torch on real images."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import onnx
import torch

from edgekit.core.canonical import JsonValue, write_json
from edgekit.core.digests import digest_bytes
from edgekit.core.files import write_bytes
from edgekit.core.progress import NULL_OBSERVER, Observer
from edgekit.core.stages import Stage, StageRecord, run_stage
from edgekit.errors import BadInputError
from edgekit.export.explained import cleaned_onnx, explained_onnx
from edgekit.export.operator_check import require_operators
from edgekit.export.operator_table import load_table
from edgekit.export.options import ExportOptions
from edgekit.export.origin import set_made_of
from edgekit.export.parity import Parity, check_parity, compare, holds
from edgekit.export.parting import first_parting
from edgekit.export.truth import Truth, truth_of
from edgekit.teacher.explainer import explainer_for
from edgekit.teacher.load_options import LoadOptions
from edgekit.teacher.loading import load_model

__all__ = ["GRAPH_NAME", "INTERFACE_NAME", "ExportRequest", "ParityImages", "export"]

GRAPH_NAME = "model.onnx"
INTERFACE_NAME = "interface.json"
# 3: the graph says what it was made of.
_VERSION = 3


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
        teacher: SHA-256 of the teacher's file, for the graph to name; empty where that is not known.
    """

    model: Path
    load: LoadOptions
    images: ParityImages
    opset: int
    options: ExportOptions
    operators: str | None = None
    teacher: str = ""


def export(request: ExportRequest, destination: Path, observer: Observer = NULL_OBSERVER) -> StageRecord:
    """Write `model.onnx` and `interface.json` into `destination`, checked against torch.

    Raises:
        BadInputError: As `load_model` and `explained_onnx`; or the parity check failed, or had no image.
    """
    options: dict[str, JsonValue] = {
        "load": request.load.to_dict(),
        "opset": request.opset,
        "operators": request.operators,
        "teacher": request.teacher,
        "torch": torch.__version__,
        "onnx": onnx.__version__,
        **asdict(request.options),
    }
    stage = Stage("export", _VERSION, options, {"model": request.model}, {"images": _digest(request.images)})
    return run_stage(stage, destination, lambda folder: _export(request, folder, observer), observer)


def _digest(images: ParityImages) -> str:
    return digest_bytes("\n".join(images.digests).encode())


def _export(request: ExportRequest, folder: Path, observer: Observer) -> dict[str, Any]:
    loaded = load_model(request.model, request.load)
    options = request.options
    images = next(request.images.batches(options.parity_images), None)
    if images is None:
        raise BadInputError("The parity check needs at least one image.", hint="give images with --data")
    raw = explained_onnx(loaded, options.maps, use_closed_form=options.closed_form, opset=request.opset)
    explainer = explainer_for(loaded, options.maps, torch.from_numpy(images[:2]))
    truth = truth_of(loaded.model, explainer, images, classes=options.classes)
    graph_file = folder / GRAPH_NAME
    check = _Check(truth, graph_file, options)
    explained, passes = cleaned_onnx(raw, check, observer, options.batch)
    set_made_of(explained.model, loaded.digest, request.teacher)
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
        "summary": f"{explained.form}, parity {max(parity.logits, parity.attribution):.1e} on {_firm(parity)}",
    }


def _firm(parity: Parity) -> str:
    left_out = f" ({parity.kinks} more at a kink of the gradient)" if parity.kinks else ""
    return f"{parity.samples - parity.kinks} images{left_out}"


class _Check:
    """Parity of a graph with what the network says on real images, through a file as an engine reads it."""

    def __init__(self, truth: Truth, graph_file: Path, options: ExportOptions) -> None:
        self._truth = truth
        self._file = graph_file
        self._options = options

    def parity(self, model: onnx.ModelProto) -> Parity:
        write_bytes(self._file, model.SerializeToString(deterministic=True))
        return compare(self._truth, self._file, self._options.parity_tolerance)

    def __call__(self, model: onnx.ModelProto) -> str | None:
        parity = self.parity(model)
        if holds(parity, self._options.parity_tolerance):
            return None
        return f"logits off by {parity.logits:.1e}, maps by {parity.attribution:.1e} and {parity.own_class:.1e}"
