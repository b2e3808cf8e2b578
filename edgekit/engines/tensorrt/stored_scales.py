"""A stored scale table as a calibration cache: the same scales for TensorRT's implicit INT8 path.

The table is `calibrate`'s; a device reads only what a cache needs of it. Source of the way: NVIDIA's qdq-translator in
Deep-Learning-Accelerator-SW, which writes Q/DQ scales as a cache for the float graph.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgekit.core.canonical import parse_strict
from edgekit.core.files import read_bytes
from edgekit.engines.tensorrt.calibration_cache import write_calibration_cache
from edgekit.engines.tensorrt.dla_scales import shared_scales
from edgekit.engines.tensorrt.onnx_outline import OnnxOutline
from edgekit.errors import BadInputError, IntegrityError

__all__ = ["SYMMETRIC_FORMATS", "cache_from_scales"]

SYMMETRIC_FORMATS = ("trt-s8s8",)
"""Number formats whose scale is amax / 127 with zero at the integer 0, which is what a cache can say."""

_FORMAT = "edgekit.scales/1"
_ADJUSTED_FORMAT = "edgekit.scales/2"


def cache_from_scales(
    path: Path, graph_sha256: str, version: tuple[int, int, int], for_dla: OnnxOutline | None = None
) -> bytes:
    """The calibration cache that says what a scale table says of activations; weights are scaled by TensorRT itself.

    Args:
        path: The table, as `calibrate` stored it.
        graph_sha256: Digest of the FP32 graph that will be built with it.
        version: Of the TensorRT that will read the cache.
        for_dla: The graph, where the DLA runs it: scales that it wants equal are made so, see `dla_scales`.

    Raises:
        BadInputError: The table is of another graph or number format, or belongs to a graph that was adjusted.
        IntegrityError: It is no scale table.
    """
    where = str(path)
    raw = parse_strict(read_bytes(path), where=where)
    if not isinstance(raw, dict) or raw.get("format") not in (_FORMAT, _ADJUSTED_FORMAT):
        raise _malformed(where, "another kind of file")
    if raw["format"] == _ADJUSTED_FORMAT:
        raise BadInputError(
            "These scales are for a graph that was adjusted before it was rounded.",
            where=where,
            expected="a table without adjustments for the implicit INT8 path",
            hint="calibrate with a method that adjusts nothing, or build the Q/DQ graph",
        )
    if raw.get("number_format") not in SYMMETRIC_FORMATS:
        raise BadInputError(
            "These scales are not symmetric int8, and a calibration cache can say nothing else.",
            where=where,
            expected=" or ".join(SYMMETRIC_FORMATS),
            found=repr(raw.get("number_format")),
            hint="calibrate for a TensorRT target",
        )
    if raw.get("graph") != graph_sha256:
        raise BadInputError(
            "The scale table was made for another graph.",
            where=where,
            expected=graph_sha256,
            found=repr(raw.get("graph")),
            hint="give the FP32 graph that was calibrated, unchanged",
        )
    scales = _scales(raw.get("activations"), where)
    return write_calibration_cache(scales if for_dla is None else shared_scales(scales, for_dla), version)


def _scales(activations: Any, where: str) -> dict[str, float]:
    if not isinstance(activations, dict) or not activations:
        raise _malformed(where, "no activations")
    scales = {}
    for name, entry in activations.items():
        if not isinstance(entry, Mapping) or not isinstance(entry.get("scale"), (int, float)):
            raise _malformed(where, f"no scale of {name!r}")
        if entry.get("zero_point") != 0:
            raise _malformed(where, f"a zero point of {name!r} that is not 0")
        scales[name] = float(entry["scale"])
    return scales


def _malformed(where: str, found: str) -> IntegrityError:
    return IntegrityError(
        "This is not a scale table of edgekit's.",
        where=where,
        expected="scales.json, as 'edgekit calibrate' stores it",
        found=found,
    )
