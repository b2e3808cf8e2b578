"""The scale table: the source of truth of a quantised network. The Q/DQ graph is written from it and the FP32 graph."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgekit.calibrate.adjustments import NO_ADJUSTMENTS, Adjustments
from edgekit.calibrate.formats import (
    SMALLEST_SCALE,
    NumberFormat,
    QuantParams,
    activation_params,
    bias_scales,
    number_format,
    weight_scales,
)
from edgekit.calibrate.graph import ExplainedGraph
from edgekit.calibrate.placement import Placement
from edgekit.calibrate.solution import Solution
from edgekit.calibrate.strict_reader import StrictReader
from edgekit.core.canonical import JsonValue, dump_canonical, parse_strict, write_json
from edgekit.core.files import read_bytes
from edgekit.errors import BadInputError

__all__ = [
    "SCALES_NAME",
    "ActivationScale",
    "Provenance",
    "ScaleTable",
    "WeightScale",
    "read_scales",
    "table_from_ranges",
    "write_scales",
]

SCALES_NAME = "scales.json"
_FORMAT = "edgekit.scales/1"
_ADJUSTED_FORMAT = "edgekit.scales/2"


@dataclass(frozen=True)
class ActivationScale:
    """How one activation tensor is quantised.

    Attributes:
        low: Lower end of the chosen range, at most 0.
        high: Upper end, at least 0.
        scale: Width of a step, positive, exactly a float32.
        zero_point: The integer for 0.0.
    """

    low: float
    high: float
    scale: float
    zero_point: int

    @property
    def params(self) -> QuantParams:
        """Scale and zero point."""
        return QuantParams(self.scale, self.zero_point)


@dataclass(frozen=True)
class WeightScale:
    """How one stored weight is quantised: symmetric, a scale for each slice along `axis`."""

    axis: int
    scales: tuple[float, ...]


@dataclass(frozen=True)
class Provenance:
    """What a table was made from.

    Attributes:
        graph: SHA-256 of the FP32 graph's file.
        images: SHA-256 over the digests of the calibration images, in order.
        method: Name of the calibrator.
        parameters: All parameters of the method.
        exclude: Patterns of node names that stay in float.
    """

    graph: str
    images: str
    method: str
    parameters: Mapping[str, JsonValue]
    exclude: tuple[str, ...] = ()


@dataclass(frozen=True)
class ScaleTable:
    """All numbers that quantising a graph needs.

    Attributes:
        number_format: Name of the number format.
        provenance: What the numbers come from.
        activations: Activation tensor to its scale.
        weights: Stored weight to its scales.
        adjustments: What is changed in the graph before these numbers apply.
    """

    number_format: str
    provenance: Provenance
    activations: Mapping[str, ActivationScale]
    weights: Mapping[str, WeightScale]
    adjustments: Adjustments = NO_ADJUSTMENTS

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form: format 1 where nothing is adjusted, as it was before there was anything to adjust."""
        origin = self.provenance
        adjusted = {"adjustments": self.adjustments.to_dict()} if self.adjustments else {}
        return adjusted | {
            "format": _ADJUSTED_FORMAT if adjusted else _FORMAT,
            "number_format": self.number_format,
            "graph": origin.graph,
            "images": origin.images,
            "method": {"name": origin.method, "parameters": dict(origin.parameters)},
            "exclude": list(origin.exclude),
            "activations": {name: dict(vars(entry)) for name, entry in self.activations.items()},
            "weights": {
                name: {"axis": entry.axis, "scales": list(entry.scales)} for name, entry in self.weights.items()
            },
        }

    @classmethod
    def from_dict(cls, raw: Any, *, where: str) -> ScaleTable:
        """Check and build a table from untrusted data. Raises `IntegrityError` saying which entry is wrong."""
        reader = _Reader(where)
        stated = reader.mapping(raw, "").get("format")
        if stated not in (_FORMAT, _ADJUSTED_FORMAT):
            raise reader.error("format", f"{_FORMAT} or {_ADJUSTED_FORMAT}", stated)
        top = reader.mapping(raw, "", _TOP_KEYS | ({"adjustments"} if stated == _ADJUSTED_FORMAT else set()))
        fmt = _format_named(top["number_format"], reader)
        method = reader.mapping(top["method"], "method", {"name", "parameters"})
        provenance = Provenance(
            graph=reader.text(top["graph"], "graph"),
            images=reader.text(top["images"], "images"),
            method=reader.text(method["name"], "method.name"),
            parameters=reader.mapping(method["parameters"], "method.parameters"),
            exclude=tuple(reader.text(item, "exclude") for item in reader.items(top["exclude"], "exclude")),
        )
        activations = reader.mapping(top["activations"], "activations")
        weights = reader.mapping(top["weights"], "weights")
        return cls(
            number_format=fmt.name,
            provenance=provenance,
            activations={key: reader.activation(item, key, fmt) for key, item in activations.items()},
            weights={key: reader.weight(item, key) for key, item in weights.items()},
            adjustments=Adjustments.from_dict(top["adjustments"], reader) if "adjustments" in top else NO_ADJUSTMENTS,
        )

    def to_bytes(self) -> bytes:
        """Canonical JSON: equal tables give equal bytes."""
        return dump_canonical(self.to_dict())


_TOP_KEYS = {"format", "number_format", "graph", "images", "method", "exclude", "activations", "weights"}


class _Reader(StrictReader):
    """Entries of a scale table."""

    def activation(self, raw: Any, name: str, fmt: NumberFormat) -> ActivationScale:
        key = f"activations.{name}"
        entry = self.mapping(raw, key, {"low", "high", "scale", "zero_point"})
        low, high = self.number(entry["low"], key), self.number(entry["high"], key)
        zero_point = self.integer(entry["zero_point"], key)
        if not (math.isfinite(low) and math.isfinite(high) and low <= 0 <= high):
            raise self.error(key, "a range that contains zero", [low, high])
        if not fmt.qmin <= zero_point <= fmt.qmax or (fmt.symmetric and zero_point != 0):
            raise self.error(key, f"a zero point of {fmt.name}", zero_point)
        return ActivationScale(low, high, self.scale(entry["scale"], key), zero_point)

    def weight(self, raw: Any, name: str) -> WeightScale:
        key = f"weights.{name}"
        entry = self.mapping(raw, key, {"axis", "scales"})
        scales = tuple(self.scale(item, key) for item in self.items(entry["scales"], key))
        return WeightScale(self.integer(entry["axis"], key), scales)


def _format_named(raw: Any, reader: _Reader) -> NumberFormat:
    name = reader.text(raw, "number_format")
    try:
        return number_format(name)
    except BadInputError as cause:
        raise reader.error("number_format", cause.expected or "a known number format", name) from cause


def read_scales(path: Path) -> ScaleTable:
    """Read a scale table. Raises `IntegrityError` when it is malformed, `BadInputError` when it cannot be read."""
    return ScaleTable.from_dict(parse_strict(read_bytes(path), where=str(path)), where=str(path))


def write_scales(path: Path, table: ScaleTable) -> None:
    """Store a scale table as canonical JSON, atomically."""
    write_json(path, table.to_dict())


def table_from_ranges(
    graph: ExplainedGraph,
    placement: Placement,
    fmt: NumberFormat,
    solution: Solution,
    provenance: Provenance,
) -> ScaleTable:
    """Turn what a calibrator chose into scales; weights it says nothing of get theirs by their largest magnitudes.

    Args:
        graph: The adjusted FP32 graph.
        placement: What is quantised in it.
        fmt: The number format.
        solution: Ranges for `placement.observed`, and what else was chosen.
        provenance: What it was chosen from. Names the graph before adjustment.

    Raises:
        BadInputError: A weight or bias is not finite.
    """
    activations = {}
    for name in placement.activations:
        limits = solution.ranges[placement.range_of[name]]
        params = activation_params(limits, fmt)
        activations[name] = ActivationScale(limits.low, limits.high, params.scale, params.zero_point)
    scales: dict[str, Any] = {}
    axes: dict[str, int] = {}
    for use in placement.weights:
        weight = _finite(graph, use.weight)
        if use.weight not in scales:
            axes[use.weight] = use.axis
            others = tuple(axis for axis in range(weight.ndim) if axis != use.axis)
            chosen = solution.weight_scales.get(use.weight)
            if chosen is None:
                scales[use.weight] = weight_scales(np.abs(weight).max(axis=others).astype(np.float64), fmt)
            else:
                scales[use.weight] = np.maximum(np.asarray(chosen, dtype=np.float32), SMALLEST_SCALE)
        if fmt.integer_bias and use.bias is not None:
            bias = _finite(graph, use.bias)
            scales[use.weight] = bias_scales(scales[use.weight], bias, activations[use.data].scale)
    weights = {name: WeightScale(axes[name], tuple(float(item) for item in scales[name])) for name in scales}
    return ScaleTable(fmt.name, provenance, activations, weights, solution.adjustments)


def _finite(graph: ExplainedGraph, name: str) -> Any:
    values = graph.constant(name)
    if not np.isfinite(values).all():
        raise BadInputError("A stored weight is not finite.", where=f"tensor {name!r}", expected="finite values")
    return values
