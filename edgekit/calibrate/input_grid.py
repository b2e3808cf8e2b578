"""Rounding an image on the grid that it was captured on, rather than on that of its normalised values."""

from __future__ import annotations

from typing import Any

from edgekit.calibrate.adjustments import InputGrid
from edgekit.calibrate.graph import ExplainedGraph
from edgekit.errors import DefectError

__all__ = ["with_input_grid"]


def with_input_grid(graph: ExplainedGraph, grid: InputGrid) -> Any:
    """TO BE WRITTEN."""
    raise DefectError("not yet", found=f"{graph.digest} {grid}")
