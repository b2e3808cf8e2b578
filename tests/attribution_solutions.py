"""What tests of the attribution-aware methods share: images as cameras give them, and a judgement of one's own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar
from unittest import mock

import numpy as np
from explained_graphs import GRAPHS, ArrayImages, random_images

from edgekit.calibrate.attribution.image_split import HeldImages, split_images
from edgekit.calibrate.attribution.judge import Judge, table_of
from edgekit.calibrate.attribution.workbench import Workbench
from edgekit.calibrate.calibrator import CalibrationContext
from edgekit.calibrate.drift import Drift, drift_of
from edgekit.calibrate.formats import number_format
from edgekit.calibrate.graph import parse_graph
from edgekit.calibrate.minmax import MinMaxCalibrator
from edgekit.calibrate.options import CalibrateOptions
from edgekit.calibrate.placement import place
from edgekit.calibrate.probe import answers_of, float_answers
from edgekit.calibrate.qdq import write_qdq
from edgekit.calibrate.solution import Solution
from edgekit.calibrate.stage import QuantisedGraph, quantise_graph
from edgekit.core.progress import NULL_OBSERVER, Observer
from edgekit.interface.card import InputSpec

T = TypeVar("T")

NORMALISED = InputSpec(16, 16, mean=(0.48, 0.46, 0.41), std=(0.23, 0.22, 0.24))
RAW = InputSpec(16, 16, divisor=1.0)


def photographs(count: int, spec: InputSpec = NORMALISED, seed: int = 0) -> ArrayImages:
    """Eight-bit pixels, prepared as the card says."""
    grey = np.clip(np.rint(random_images(count, seed=seed).pixels * 50 + 128), 0, 255)
    mean, std = (np.asarray(values).reshape(3, 1, 1) for values in (spec.mean, spec.std))
    return ArrayImages(((grey / spec.divisor - mean) / std).astype(np.float32))


def context_of(name: str, images: ArrayImages, *, fmt: str = "x86-u8s8", **more: Any) -> CalibrationContext:
    """A hand-made graph with these images, known to be photographs unless `input` says otherwise."""
    graph, form = parse_graph(GRAPHS[name]().SerializeToString(), where="test"), number_format(fmt)
    options = CalibrateOptions(method="attribution", bins=256)
    made = CalibrationContext(graph, place(graph, form), form, images, options, input=NORMALISED)
    return replace(made, **more)


def quantised(
    context: CalibrationContext, method: str, observer: Observer = NULL_OBSERVER, **options: Any
) -> QuantisedGraph:
    """A context's graph as the stage would quantise it; the workplace is the context's."""
    return quantise_graph(
        context.graph,
        context.images,
        context.number_format,
        CalibrateOptions(method=method, bins=256, **options),
        observer,
        input_spec=context.input,
        workplace=context.workplace,
    )


def watched(work: Callable[[], T]) -> tuple[T, HeldImages]:
    """What some work answers, and the images that it was judged by."""
    judges: list[Judge] = []
    original = Judge.__init__

    def init(self: Judge, context: CalibrationContext, images: HeldImages | None = None) -> None:
        original(self, context, images)
        judges.append(self)

    with mock.patch.object(Judge, "__init__", init):
        answer = work()
    (judge,) = judges
    return answer, judge.images


def plain_minmax(context: CalibrationContext) -> Solution:
    """What every solution has to beat."""
    return Workbench(context, 1, 1).view().streamed(MinMaxCalibrator())


def judged_again(context: CalibrationContext, solution: Solution, facts: Any, judged: HeldImages) -> Drift:
    """A solution's drift on the images it was judged by, without the judge; they have to be those that facts tell."""
    digests = context.images.digests
    split = split_images(len(digests), facts["training_images"], facts["judging_images"])
    assert facts["judged_on_images_apart"] == split.apart == (not set(split.training) & set(split.judging))
    assert set(judged.digests) == {digests[position] for position in split.judging}
    reference = float_answers(context.graph, judged.pixels)
    model = write_qdq(context.graph, table_of(context, solution))
    return drift_of(reference, answers_of(model, judged.pixels, reference.classes))
