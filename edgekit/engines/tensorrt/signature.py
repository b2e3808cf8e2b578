"""Inputs, outputs and batch sizes of a TensorRT engine or network, held against what an explained graph has."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgekit.engines.asking import LOGITS, expected_outputs
from edgekit.engines.tensorrt.binding import TensorRt

__all__ = [
    "CLASS_INDEX",
    "IMAGE",
    "BatchRange",
    "EngineSignature",
    "engine_signature",
    "signature_problem",
    "type_name",
]

TensorFacts = tuple[str, tuple[int, ...]]
"""Type ("FLOAT", "INT32", ...) and shape, -1 where it is free."""

IMAGE, CLASS_INDEX = "image", "class_index"


@dataclass(frozen=True)
class BatchRange:
    """Images a run: what an optimisation profile allows, and what its kernels were chosen for."""

    smallest: int
    usual: int
    largest: int


@dataclass(frozen=True)
class EngineSignature:
    """What goes in and out.

    Attributes:
        image: Shape of an image without the batch, [3, H, W].
        columns: Classes that an image gets maps of; None where `class_index` is [N].
        classes: How many the logits have.
        outputs: Names of the outputs, logits first.
        dtypes: Tensor name to numpy type.
        profiles: The batch sizes of every optimisation profile.
    """

    image: tuple[int, ...]
    columns: int | None
    classes: int
    outputs: tuple[str, ...]
    dtypes: Mapping[str, np.dtype[Any]]
    profiles: tuple[BatchRange, ...]


def signature_problem(inputs: Mapping[str, TensorFacts], outputs: Mapping[str, TensorFacts]) -> str:
    """Empty where these are an explained graph's inputs and outputs by name; otherwise what is found instead."""
    wanted = {IMAGE: ("FLOAT", (4,)), CLASS_INDEX: ("INT32", (1, 2))}
    sound = set(inputs) == set(wanted) and all(
        inputs[name][0] == kind and len(inputs[name][1]) in ranks for name, (kind, ranks) in wanted.items()
    )
    sound = sound and set(outputs) == set(expected_outputs(len(outputs)))
    if sound and all(kind == "FLOAT" for kind, _ in outputs.values()):
        return ""
    described = (
        ", ".join(f"{name} {kind} {list(shape)}" for name, (kind, shape) in tensors.items()) or "none"
        for tensors in (inputs, outputs)
    )
    return "inputs {}; outputs {}".format(*described)


def engine_signature(tensorrt: TensorRt, engine: Any) -> EngineSignature | str:
    """What an engine's tensors are, or the problem with them."""
    module = tensorrt.module
    names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
    inputs: dict[str, TensorFacts] = {}
    outputs: dict[str, TensorFacts] = {}
    for name in names:
        described = type_name(engine.get_tensor_dtype(name)), tuple(engine.get_tensor_shape(name))
        is_input = engine.get_tensor_mode(name) == module.TensorIOMode.INPUT
        (inputs if is_input else outputs)[name] = described
    problem = signature_problem(inputs, outputs)
    if problem:
        return problem
    profiles = []
    for index in range(max(engine.num_optimization_profiles, 1)):
        smallest, usual, largest = (next(iter(shape)) for shape in engine.get_tensor_profile_shape(IMAGE, index))
        profiles.append(BatchRange(int(smallest), int(usual), int(largest)))
    classes = inputs[CLASS_INDEX][1]
    return EngineSignature(
        image=tuple(int(side) for side in inputs[IMAGE][1][1:]),
        columns=int(classes[1]) if len(classes) == 2 else None,
        classes=int(outputs[LOGITS][1][-1]),
        outputs=tuple(expected_outputs(len(outputs))),
        dtypes={name: np.dtype(np.int32 if name == CLASS_INDEX else np.float32) for name in names},
        profiles=tuple(profiles),
    )


def type_name(dtype: Any) -> str:
    """Name of a member of TensorRT's `DataType`: its number differs between versions, and so may its text."""
    return str(getattr(dtype, "name", None) or str(dtype).rpartition(".")[2].split(":")[0])
