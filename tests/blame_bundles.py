"""Bundles of hand-made graphs, sound or with a fault at one hop, in milliseconds and without torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from explained_graphs import GRAPHS, ArrayImages
from onnx import ModelProto, numpy_helper

from edgekit.attribution.spec import MapSpec
from edgekit.bundle import layout
from edgekit.bundle.assemble import BundleRequest, bundle, contents_from_folder
from edgekit.bundle.golden import GoldenSet, write_golden
from edgekit.calibrate.formats import number_format
from edgekit.calibrate.graph import ExplainedGraph, parse_graph
from edgekit.calibrate.options import CalibrateOptions
from edgekit.calibrate.probe import float_answers
from edgekit.calibrate.qdq import serialise, write_qdq
from edgekit.calibrate.scale_table import ScaleTable
from edgekit.calibrate.stage import quantise_graph
from edgekit.config.recipe import Recipe, recipe_to_dict
from edgekit.core.canonical import dump_canonical
from edgekit.interface.card import InputSpec, ModelCard
from edgekit.interface.preprocess import preprocess
from edgekit.metrics.scores_io import scores_to_dict
from edgekit.policy.document import policy_from_dict
from edgekit.policy.policy import Policy
from edgekit.policy.verdict import judge
from edgekit.verify.answers import EngineAnswers
from edgekit.verify.score import score_answers

__all__ = [
    "CLASSES",
    "POLICY",
    "SPEC",
    "Made",
    "golden_of",
    "harmed_table",
    "make_bundle",
    "quantised",
    "smooth_pixels",
    "with_noisy_weights",
]

SPEC = InputSpec(16, 16, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
CLASSES = ("a", "b", "c", "d", "e")
POLICY: Policy = policy_from_dict(
    {
        "format": "edgekit.policy/1",
        "name": "close",
        "confidence": 0.95,
        "min_samples": 10,
        "clauses": [{"kind": "mean", "metric": "cosine", "bound": 0.98}],
    },
    where="test",
)


@dataclass(frozen=True)
class Made:
    """A bundle and what went into it."""

    folder: Path
    graph: ExplainedGraph
    table: ScaleTable
    golden: GoldenSet


def smooth_pixels(count: int, seed: int = 5) -> npt.NDArray[np.uint8]:
    coarse = np.random.default_rng(seed).normal(128, 60, (count, 4, 4, 3))
    fine = np.random.default_rng(seed + 1).normal(0, 8, (count, 16, 16, 3))
    smooth = coarse.repeat(4, axis=1).repeat(4, axis=2) + fine
    return np.clip(smooth, 0, 255).astype(np.uint8)


def golden_of(graph: ExplainedGraph, pixels: npt.NDArray[np.uint8], classes: tuple[str, ...] = CLASSES) -> GoldenSet:
    """A golden set whose teacher is the graph itself."""
    answers = float_answers(graph, preprocess(pixels, SPEC))
    height, width = answers.maps[0].shape[1:]
    return GoldenSet(
        card=ModelCard(SPEC, classes),
        map_spec=MapSpec("grad-cam", "tap", height, width),
        pixels=pixels,
        labels=answers.classes.astype(np.int64),
        logits=answers.logits,
        maps=answers.maps[0],
        names=tuple(f"{number}.png" for number in range(len(pixels))),
        masks=None,
        teacher="0" * 64,
    )


def quantised(
    graph: ExplainedGraph,
    fmt: str = "x86-u8s8",
    exclude: tuple[str, ...] = (),
    prepared: npt.NDArray[np.float32] | None = None,
) -> ScaleTable:
    images = ArrayImages(preprocess(smooth_pixels(16, seed=9), SPEC) if prepared is None else prepared)
    options = CalibrateOptions(method="minmax", exclude=exclude)
    return quantise_graph(graph, images, number_format(fmt), options).table


def harmed_table(table: ScaleTable, name: str, factor: float) -> ScaleTable:
    """The table with steps of one activation, or of one weight, that are `factor` times as wide."""
    if name in table.weights:
        entry = table.weights[name]
        wide = replace(entry, scales=tuple(float(np.float32(scale * factor)) for scale in entry.scales))
        return replace(table, weights={**table.weights, name: wide})
    activation = table.activations[name]
    wide_activation = replace(activation, scale=float(np.float32(activation.scale * factor)))
    return replace(table, activations={**table.activations, name: wide_activation})


def with_noisy_weights(model: ModelProto, strength: float = 0.5) -> ModelProto:
    """The model with weights that somebody spoilt."""
    changed = ModelProto()
    changed.CopyFrom(model)
    rng = np.random.default_rng(1)
    for tensor in changed.graph.initializer:
        values = numpy_helper.to_array(tensor)
        if values.ndim == 4:
            noise = rng.normal(0, strength * values.std(), values.shape)
            tensor.CopyFrom(numpy_helper.from_array((values + noise).astype(np.float32), tensor.name))
    return changed


def _before_controls(recipe: dict[str, Any]) -> dict[str, Any]:
    """A recipe of before there were controls: these bundles are made without a verification, and so without any."""
    return {key: value for key, value in recipe.items() if key != "verify"}


def make_bundle(
    folder: Path,
    *,
    graph: ModelProto | str = "residual",
    teacher: ModelProto | None = None,
    fmt: str = "x86-u8s8",
    table: Callable[[ScaleTable], ScaleTable] = lambda table: table,
    engine: Callable[[ExplainedGraph, ScaleTable], Any] | None = None,
    precision: str = "int8",
    samples: int = 24,
    policy: Policy = POLICY,
    classes: tuple[str, ...] = CLASSES,
    recipe: Recipe | None = None,
    lineage: Mapping[str, Any] | None = None,
    golden: Callable[[GoldenSet], GoldenSet] = lambda golden: golden,
    golden_set: GoldenSet | None = None,
) -> Made:
    """Write a bundle to `folder`.

    Args:
        folder: Where.
        graph: The FP32 graph, or the name of a hand-made one.
        teacher: What the golden set's answers come from; the graph itself unless said.
        fmt: Number format.
        table: Changes the scale table that goes into the bundle.
        engine: The artifact from graph and (changed) table; the Q/DQ graph unless said.
        precision: "int8" or "fp32".
        samples: Of the golden set.
        policy: In the bundle.
        classes: Their names.
        recipe: In the bundle.
        lineage: Stage records in the bundle.
        golden: Changes the golden set.
        golden_set: Made elsewhere, for the same graph; ranges are then found on its images.
    """
    model = GRAPHS[graph]() if isinstance(graph, str) else graph
    parsed = parse_graph(model.SerializeToString(), where="test")
    if golden_set is None:
        answering = parsed if teacher is None else parse_graph(teacher.SerializeToString(), where="test")
        made, prepared = golden(golden_of(answering, smooth_pixels(samples), classes)), None
    else:
        made, prepared = golden_set, preprocess(golden_set.pixels, golden_set.card.input)
    scales = table(quantised(parsed, fmt, () if recipe is None else recipe.calibrate.exclude, prepared))
    artifact = write_qdq(parsed, scales) if engine is None else engine(parsed, scales)
    stored = folder.with_name(f"{folder.name}-golden")
    write_golden(made, stored)
    further = tuple(item.maps for item in made.further)
    scores = score_answers(made, EngineAnswers(made.logits, made.maps, made.maps, further, further))
    contents: dict[str, Path | bytes] = {
        layout.MODEL: serialise(parsed.model if precision == "fp32" else artifact),
        layout.POLICY: dump_canonical(policy.to_dict()),
        layout.RECIPE: dump_canonical(_before_controls(recipe_to_dict(recipe or Recipe()))),
        layout.LINEAGE: dump_canonical(dict(lineage or {})),
        layout.SCORES: dump_canonical(scores_to_dict(scores)),
        layout.VERDICT: dump_canonical(judge(policy, scores).to_dict()),
        **contents_from_folder(layout.GOLDEN, stored),
    }
    if precision == "int8":
        contents |= {layout.REFERENCE: serialise(parsed.model), layout.SCALES: scales.to_bytes()}
    bundle(BundleRequest("cpu", "ort-cpu", precision, "released", made.card, made.map_spec, contents), folder)
    return Made(folder, parsed, scales, made)
