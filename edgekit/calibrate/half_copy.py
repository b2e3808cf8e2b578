"""Graphs with FP16 types, for targets whose runtime computes in the types of a graph.

The one of the Q/DQ graph lies beside it and stands for it; the one of the FP32 graph is a candidate of its own, FP16.
Where FP16 cannot hold the network's values there is none, with the reason; the graph with FP32 types is what such a
runtime then builds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper

from edgekit.attribution.spec import OWN_CLASS
from edgekit.calibrate.formats import NumberFormat
from edgekit.calibrate.graph import CLASS_INDEX, IMAGE
from edgekit.calibrate.qdq import serialise
from edgekit.calibrate.runtime import open_session, run_session
from edgekit.core.canonical import JsonValue
from edgekit.core.digests import digest_bytes
from edgekit.core.files import read_bytes, write_bytes
from edgekit.core.progress import NULL_OBSERVER, Observer
from edgekit.engines.half_graph import FLOAT16_NAME, half_graph_beside
from edgekit.errors import BadInputError
from edgekit.half.typed import type_half
from edgekit.interface.batches import filled

__all__ = ["IMAGES", "largest_magnitudes", "refused", "write_float16", "write_half_copy"]

IMAGES = 4
"""How many images show whether values leave FP16."""


def write_half_copy(
    path: Path, fmt: NumberFormat, images: npt.NDArray[np.float32], observer: Observer = NULL_OBSERVER
) -> dict[str, JsonValue]:
    """Write the FP16-typed graph beside a Q/DQ graph, where its number format is TensorRT's.

    Args:
        path: The Q/DQ graph.
        fmt: The number format that it was placed for.
        images: Real images as network input, float32 [N, 3, H, W]; the first `IMAGES` show whether values leave FP16.
        observer: Told where there can be no such graph.

    Returns:
        What goes into the stage's facts, as "fp16_types"; empty where nothing was to be written.
    """
    if fmt.placement != "tensorrt":
        return {}
    facts = _write(path, half_graph_beside(path), images)
    if not facts["written"]:
        observer.noted(f"FP16: no graph with FP16 types for TensorRT 11 and later: {facts['reason']}")
    return {"fp16_types": facts}


def write_float16(
    path: Path,
    folder: Path,
    fmt: NumberFormat,
    images: npt.NDArray[np.float32],
    observer: Observer = NULL_OBSERVER,
) -> dict[str, JsonValue]:
    """Write the graph of the FP16 candidate, where the number format is TensorRT's.

    Args:
        path: The FP32 graph.
        folder: Where `FLOAT16_NAME` goes.
        fmt: As for `write_half_copy`.
        images: As for `write_half_copy`.
        observer: Told where there can be no such graph.

    Returns:
        What goes into the stage's facts, as "fp16_candidate"; empty where nothing was to be written.
    """
    if fmt.placement != "tensorrt":
        return {}
    facts = _write(path, folder / FLOAT16_NAME, images)
    if not facts["written"]:
        observer.noted(f"FP16: no candidate: {facts['reason']}")
    return {"fp16_candidate": facts}


def refused(facts: Mapping[str, JsonValue]) -> str:
    """For a stage's summary: which of the two could not be written and why; empty where both were or none was to be."""
    told = []
    for key, what in (("fp16_types", "no FP16 types for INT8"), ("fp16_candidate", "no FP16 candidate")):
        found = facts.get(key)
        if isinstance(found, dict) and not found["written"]:
            told.append(f"{what} ({found['reason']})")
    return "".join(f"; {words}" for words in told)


def _write(path: Path, place: Path, images: npt.NDArray[np.float32]) -> dict[str, JsonValue]:
    data = read_bytes(path)
    model = onnx.load_model_from_string(data)
    try:
        typed = type_half(
            model,
            source=digest_bytes(data),
            measure=lambda names: largest_magnitudes(model, names, images[:IMAGES]),
        )
    except BadInputError as refusal:
        why = " ".join(part for part in (refusal.message, refusal.where, refusal.found) if part)
        return {"written": False, "reason": why}
    write_bytes(place, serialise(typed.model))
    half, single = ({**counts} for counts in (typed.half, typed.single))
    return {"written": True, "fp16": half, "fp32": single, "casts": typed.casts}


def largest_magnitudes(model: Any, names: Sequence[str], images: npt.NDArray[np.float32]) -> dict[str, float]:
    """The largest magnitude of each tensor over some images, by ONNX Runtime.

    Args:
        model: An explained `onnx.ModelProto`, float or quantised.
        names: Float tensors of it.
        images: Network input, float32 [N, 3, H, W].

    Raises:
        BadInputError: ONNX Runtime refuses the graph.
        UnavailableError: It is not here or failed.
    """
    asking = onnx.ModelProto()
    asking.CopyFrom(model)
    del asking.graph.output[:]
    answers = {}
    for index, name in enumerate(names):
        size, largest = f"edgekit/size_{index}", f"edgekit/largest_{index}"
        asking.graph.node.append(helper.make_node("Abs", [name], [size]))
        asking.graph.node.append(helper.make_node("ReduceMax", [size], [largest], keepdims=0))
        asking.graph.output.append(helper.make_tensor_value_info(largest, TensorProto.FLOAT, []))
        answers[largest] = name
    session = open_session(asking)
    shapes = {value.name: value.type.tensor_type.shape.dim for value in asking.graph.input}
    batch = shapes[IMAGE][0].dim_value or None
    images = images[: batch or len(images)]
    classes = np.full((len(images), *(dim.dim_value for dim in shapes[CLASS_INDEX][1:])), OWN_CLASS, np.int32)
    feeds = {IMAGE: filled(images, batch), CLASS_INDEX: filled(classes, batch)}
    found = run_session(session, list(answers), feeds)
    return {name: float(found[largest]) for largest, name in answers.items()}
