"""One image through a bundle's engine: its answer, and where it looked."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgekit.attribution.spec import OWN_CLASS
from edgekit.bundle.open import Bundle
from edgekit.core.digests import digest_array
from edgekit.core.files import write_bytes
from edgekit.engines.protocol import EngineOptions, EngineOutput
from edgekit.engines.registry import ENGINES
from edgekit.errors import BadInputError
from edgekit.images.decode import decode_image
from edgekit.interface.preprocess import preprocess
from edgekit.metrics.agreement import score_agreement
from edgekit.metrics.classification import sigmoid, softmax
from edgekit.report.explain import explain_overlay

__all__ = ["Explanation", "explain_image"]


@dataclass(frozen=True)
class Explanation:
    """What an engine said about one image.

    Attributes:
        answer: The engine's own top-1.
        explained: The class whose map was drawn.
        probability: Of the explained class.
        teacher: The teacher's top-1 where the golden set has this image, else None.
        cosine: Of the teacher's and the engine's map there, when both explain the same class.
    """

    answer: str
    explained: str
    probability: float
    teacher: str | None
    cosine: float | None

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        return dict(vars(self))


def explain_image(bundle: Bundle, image: Path, output: Path, class_name: str | None = None) -> Explanation:
    """Run the engine on `image` and write the overlay to `output`.

    Raises:
        BadInputError: The image cannot be read, or the class is not the engine's.
        UnavailableError: The runtime or Pillow is not here.
    """
    card = bundle.manifest.card
    if class_name is not None and class_name not in card.classes:
        raise BadInputError(f"The engine has no class {class_name!r}.", expected="one of " + ", ".join(card.classes))
    pixels = decode_image(image, card.input.height, card.input.width)
    wanted = OWN_CLASS if class_name is None else card.classes.index(class_name)
    with ENGINES.load(bundle.manifest.engine).open(bundle.model_path, EngineOptions()) as runner:
        answer = runner.run(preprocess(pixels[None], card.input), np.array([wanted], dtype=np.int32))
    logits, attribution = answer.logits, answer.attribution[0]
    own = int(np.argmax(logits[0]))
    explained = own if wanted == OWN_CLASS else wanted
    probability = float((softmax(logits) if card.task == "softmax" else sigmoid(logits))[0, explained])
    teacher_class, teacher_map = _teacher(bundle, pixels)
    same = teacher_class == explained
    cosine = _cosine(teacher_map, attribution) if teacher_map is not None and same else None
    write_bytes(
        output,
        explain_overlay(
            pixels,
            attribution,
            class_name=card.classes[explained],
            probability=probability,
            teacher_map=teacher_map if same else None,
            further=_further(bundle, answer, explained),
        ),
    )
    return Explanation(
        answer=card.classes[own],
        explained=card.classes[explained],
        probability=probability,
        teacher=None if teacher_class is None else card.classes[teacher_class],
        cosine=cosine,
    )


def _further(bundle: Bundle, answer: EngineOutput, explained: int) -> dict[str, npt.NDArray[np.float32]]:
    """The engine's other maps: at another tap, or of its answers that follow."""
    card = bundle.manifest.card
    ranked = np.argsort(-answer.logits[0], kind="stable")
    shown = {}
    for view, maps in zip(bundle.manifest.map_spec.views[1:], answer.further, strict=True):
        of = card.classes[explained if view.column == 0 else int(ranked[view.column])]
        shown[f"{of}, at {view.spec.tap}"] = maps[0]
    return shown


def _teacher(bundle: Bundle, pixels: npt.NDArray[np.uint8]) -> tuple[int | None, npt.NDArray[np.float32] | None]:
    """The teacher's top-1 and map where the golden set has these very pixels."""
    golden = bundle.golden()
    digest = digest_array(pixels)
    if digest not in golden.digests:
        return None, None
    index = golden.digests.index(digest)
    return int(golden.teacher_class[index]), golden.maps[index]


def _cosine(teacher: npt.NDArray[np.float32], engine: npt.NDArray[np.float32]) -> float | None:
    value = float(score_agreement(teacher[None], engine[None], ["cosine"]).metrics["cosine"][0])
    return None if np.isnan(value) else value
