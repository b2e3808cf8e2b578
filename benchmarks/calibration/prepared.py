"""A network made ready: its explained graph, its images as files that any tool can read, and its own answers."""

from __future__ import annotations

import io
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from calibration.answers import Answers, engine_answers
from calibration.data import read_images
from calibration.networks import Network, checkpoint_of
from edgekit.core.canonical import dump_canonical, read_json, write_json
from edgekit.core.digests import digest_bytes, digest_file
from edgekit.core.files import atomic_directory, write_bytes
from edgekit.export.options import ExportOptions
from edgekit.export.stage import GRAPH_NAME, INTERFACE_NAME, ExportRequest, export
from edgekit.teacher.loading import load_model

__all__ = ["Prepared", "prepare"]

# That of the target cpu-x86; enough of the operator set for every tool.
_OPSET = 19
_PARITY_IMAGES = 8
# As many as the table of memory asks for.
_CALIBRATION_IMAGES = 1024
_VERSION = 1


@dataclass(frozen=True)
class Prepared:
    """A network's files.

    Attributes:
        network: The network.
        graph: Its explained FP32 graph.
        images: Folder of the images and of the graph's answers.
    """

    network: Network
    graph: Path
    images: Path

    @property
    def calibration(self) -> Path:
        """float32 .npy, [N, 3, H, W]."""
        return self.images / "calibration.npy"

    @property
    def evaluation(self) -> Path:
        """float32 .npy, [N, 3, H, W]."""
        return self.images / "evaluation.npy"

    @property
    def classes_file(self) -> Path:
        """int32 .npy, [N]: what is explained, the FP32 graph's own top-1."""
        return self.images / "classes.npy"

    @cached_property
    def told(self) -> dict[str, Any]:
        """Digests of the images, card, form of the map, accuracy of the FP32 graph."""
        return dict(read_json(self.images / "facts.json"))

    @cached_property
    def labels(self) -> npt.NDArray[np.int64]:
        """Of the evaluation images."""
        return np.load(self.images / "labels.npy")

    @cached_property
    def reference(self) -> Answers:
        """The FP32 graph's answers."""
        with np.load(self.images / "reference.npz") as stored:
            return Answers(stored["logits"], stored["asked"], stored["own"])

    @cached_property
    def digest(self) -> str:
        """Of everything a unit's result depends on here."""
        told = [digest_file(self.graph), *(digest_file(path) for path in (self.calibration, self.evaluation))]
        return digest_bytes(dump_canonical([*told, self.told["calibration"], self.told["evaluation"]]))


def prepare(network: Network, shared: Path, work: Path, evaluated: int) -> Prepared:
    """Make a network ready, unless it is.

    Args:
        network: Which.
        shared: Data sets and published weights.
        work: Where everything is kept.
        evaluated: Held-out images to answer, at most all there are.
    """
    checkpoint = checkpoint_of(network, shared, work)
    card = load_model(checkpoint, network.load).card
    images = read_images(network.dataset, card.classes, shared, work)
    exported = work / "networks" / network.name
    parity = images.train.first(_PARITY_IMAGES).prepared(card.input)
    export(
        ExportRequest(checkpoint, network.load, parity, _OPSET, ExportOptions(parity_images=_PARITY_IMAGES)), exported
    )
    key = digest_bytes(
        dump_canonical([_VERSION, digest_file(exported / GRAPH_NAME), evaluated, *images.held_out.digests])
    )
    folder = work / "networks" / f"{network.name}-images-{key[:10]}"
    prepared = Prepared(network, exported / GRAPH_NAME, folder)
    if not folder.is_dir():
        calibration, evaluation = images.train.first(_CALIBRATION_IMAGES), images.held_out.first(evaluated)
        pixels = {
            name: np.concatenate(list(view.prepared(card.input).batches(256)))
            for name, view in (("calibration", calibration), ("evaluation", evaluation))
        }
        answers = engine_answers(prepared.graph, pixels["evaluation"], None)
        with atomic_directory(folder) as filled:
            for name, array in {
                **pixels,
                "labels": evaluation.labels,
                "classes": answers.classes.astype(np.int32),
            }.items():
                _store(filled / f"{name}.npy", array)
            np.savez(filled / "reference.npz", **asdict(answers))
            interface = read_json(exported / INTERFACE_NAME)
            facts = {
                "calibration": list(calibration.digests),
                "evaluation": list(evaluation.digests),
                "accuracy": float((answers.classes == evaluation.labels).mean()),
                "map": list(answers.asked.shape[1:]),
                "card": interface["card"],
                "form": interface["form"],
            }
            write_json(filled / "facts.json", facts)
    return prepared


def _store(path: Path, array: npt.NDArray[Any]) -> None:
    stored = io.BytesIO()
    np.save(stored, array)
    write_bytes(path, stored.getvalue())
