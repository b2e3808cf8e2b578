"""Everything that is measured of one network, pair by pair, on pairs that are the same for all networks.

A pair is an image and a class that is in it, and every network explains that class, whether or not it would say so.
Which pairs count is decided when tables are made: those that all compared networks predict, and all of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgekit.attribution.upsample import upsample_bilinear
from edgekit.interface.card import InputSpec
from edgekit.metrics.agreement import score_agreement
from edgekit.metrics.localisation import grown, score_localisation
from paper.answers import score_answers
from paper.compared import Compared, prepared
from paper.curves import faithfulness
from paper.masked_images import MaskedImages, Pair
from paper.profiles import EvaluationSettings

__all__ = ["Evaluation", "Questions", "agreement_columns", "evaluate", "localisation_columns", "questions"]

Columns = dict[str, npt.NDArray[np.float64]]
Maps = Mapping[str, npt.NDArray[np.float32]]


@dataclass(frozen=True)
class Questions:
    """What is asked of every network of a data set.

    Attributes:
        images: Held-out images.
        spec: The networks' input.
        pairs: Pairs with Grad-CAM, those of the test split first.
        relevance: How many of the first pairs have the relevance methods too.
        curves: How many of the first pairs have deletion and insertion.
        steps: Of these curves.
        tap: Where Grad-CAM and excitation backprop end.
        device: Where networks run.
    """

    images: MaskedImages
    spec: InputSpec
    pairs: tuple[Pair, ...]
    relevance: int
    curves: int
    steps: int
    tap: str
    device: str

    @property
    def of_test(self) -> npt.NDArray[np.bool_]:
        """Which pairs are of the test split, [pairs]."""
        return np.array([self.images.splits[image] == "test" for image, _ in self.pairs])


@dataclass(frozen=True)
class Evaluation:
    """What was found.

    Attributes:
        answers: Split ("test", "held-out") to the scores of the answers.
        columns: Name to one value a pair, float64; NaN where there is none. "predicted", "grad-cam/pixel-auc",
            "grad-cam/agreement/cosine", "lrp/pixel-auc", "deletion" and so on.
        maps: Method to its maps, float32 [pairs asked, h, w].
    """

    answers: Mapping[str, Mapping[str, float]]
    columns: Columns
    maps: Maps


def questions(images: MaskedImages, spec: InputSpec, tap: str, settings: EvaluationSettings, device: str) -> Questions:
    """The pairs of held-out images that every network is asked.

    Classes take turns and the test split goes first, so that the first pairs are of all classes. Images without any
    masks in the whole set are asked with their label, `settings.cifar_images` of them.
    """
    pairs = images.pairs or tuple((index, int(label)) for index, label in enumerate(images.labels))
    turns: dict[tuple[bool, int], int] = {}
    order = []
    for image, kind in pairs:
        group = (images.splits[image] != "test", kind)
        turns[group] = turns.get(group, -1) + 1
        order.append((group[0], turns[group], kind, image))
    ordered = tuple((image, kind) for _, _, kind, image in sorted(order))
    if not images.pairs:
        ordered = ordered[: settings.cifar_images]
    tested = sum(images.splits[image] == "test" for image, _ in ordered)
    return Questions(
        images=images,
        spec=spec,
        pairs=ordered,
        relevance=min(settings.relevance_pairs, tested),
        curves=min(settings.curve_pairs, tested),
        steps=settings.curve_steps,
        tap=tap,
        device=device,
    )


def evaluate(compared: Compared, asked: Questions, reference: Maps | None) -> Evaluation:
    """Ask one network everything.

    Args:
        compared: The network.
        asked: The questions.
        reference: The teacher's maps; None for the teacher itself.
    """
    images = asked.images
    everything = prepared(images.pixels, asked.spec, asked.device)
    logits = compared.logits(everything)
    softmax = not images.multi_label
    answers = {}
    for name, splits in (("test", ("test",)), ("held-out", ("val", "test"))):
        rows = np.array([split in splits for split in images.splits])
        answers[name] = score_answers(logits[rows], images.positive[rows], softmax=softmax).to_dict()
    columns: Columns = {"predicted": _predicted(logits, asked.pairs, softmax=softmax).astype(np.float64)}
    pictured, classes = everything[[image for image, _ in asked.pairs]], np.array([kind for _, kind in asked.pairs])
    maps = {"grad-cam": compared.maps(pictured, classes)}
    few = slice(asked.relevance)
    if asked.relevance:
        maps |= compared.relevance(pictured[few], classes[few], asked.spec, asked.tap)
    for method, found in maps.items():
        columns |= _prefixed(method, localisation_columns(found, asked))
        if reference is not None:
            columns |= _prefixed(f"{method}/agreement", agreement_columns(reference[method], found))
    if asked.curves:
        few = slice(asked.curves)
        side = everything.shape[2:]
        large = upsample_bilinear(maps["grad-cam"][few], *side)
        curves = faithfulness(
            compared.answering, pictured[few], large, classes[few], steps=asked.steps, softmax=softmax
        )
        columns |= {"deletion": curves.deletion_area, "insertion": curves.insertion_area}
    return Evaluation(answers, {name: _padded(values, len(asked.pairs)) for name, values in columns.items()}, maps)


def _predicted(logits: npt.NDArray[np.float32], pairs: tuple[Pair, ...], *, softmax: bool) -> npt.NDArray[np.bool_]:
    """Whether the network says the pair's class: as its highest answer, or with a logit above 0."""
    image, kind = np.array(pairs).T
    return logits[image].argmax(axis=1) == kind if softmax else logits[image, kind] > 0


def localisation_columns(maps: npt.NDArray[np.floating], asked: Questions) -> Columns:
    """Maps of the first pairs against their masks; nothing where the data set has no masks."""
    images, pairs = asked.images, asked.pairs[: len(maps)]
    if not images.masks:
        return {}
    masks = np.stack([images.masks[pair] for pair in pairs])
    blank = np.zeros(masks.shape[1:], dtype=np.bool_)
    ignored = np.stack([images.ignored.get(image, blank) for image, _ in pairs]) if images.ignored else None
    columns = score_localisation(maps, masks, ignored)
    columns["pointing-near"] = score_localisation(maps, grown(masks), ignored)["pointing"]
    return columns


def agreement_columns(reference: npt.NDArray[np.floating], maps: npt.NDArray[np.floating]) -> Columns:
    """Maps against the teacher's, by every metric of the gate."""
    return dict(score_agreement(reference, maps).metrics)


def _prefixed(prefix: str, columns: Columns) -> Columns:
    return {f"{prefix}/{name}": values for name, values in columns.items()}


def _padded(values: npt.NDArray[np.float64], count: int) -> npt.NDArray[np.float64]:
    return np.pad(values.astype(np.float64), (0, count - len(values)), constant_values=np.nan)
