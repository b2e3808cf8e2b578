"""The report as one HTML file that needs nothing else: no network, no script, no font."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable, Mapping
from importlib import resources
from types import MappingProxyType
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from edgekit.metrics.agreement import METRICS
from edgekit.report.charts import histogram_chart
from edgekit.report.colours import map_colours
from edgekit.report.images import difference_over_grey, map_over_grey
from edgekit.report.numbers import NumberPrinter
from edgekit.report.page_environment import page_environment
from edgekit.report.samples import Tile
from edgekit.report.whiskers import SLIM, WIDE, whisker_chart

__all__ = ["LARGEST_CLASS_TABLE", "render_page"]

LARGEST_CLASS_TABLE = 60
"""Rows of the class table on the page; with more classes the worst are shown. The JSON has all."""

_LARGEST_GROUPS = 40

_Values: TypeAlias = npt.NDArray[np.floating[Any]]
_Colours: TypeAlias = npt.NDArray[np.float64]

_STAGE_WORDS: Mapping[str, str] = MappingProxyType(
    {
        "golden": "The teacher answers held-out images once; its maps are the yardstick.",
        "compress": "The student: the teacher pruned or made sparse, or another network, trained with its maps held.",
        "export": "Network and map become one ONNX graph, checked against the original.",
        "calibrate": "Value ranges are measured, and the INT8 graph is written with explicit quantisation.",
        "qat": "Weights and scales are trained with the rounding of the INT8 graph in place.",
        "build": "The engine is made for the target.",
        "verify": "The engine answers the golden set; answers and maps are scored and judged.",
        "latency": "The engines are timed side by side, one image at a time.",
        "bundle": "Engine, evidence and report become one folder with a checksum for every file.",
    }
)
_STATE_WORDS: Mapping[str, str] = MappingProxyType(
    {
        "scored": "Both maps are usable and were compared.",
        "both_zero": "Both maps are empty: nothing to compare. Left out of means and shares, and counted here.",
        "one_zero": "One of the two maps is empty: evidence vanished or appeared. Every metric takes its worst value.",
        "non_finite": "The engine's map holds NaN or infinity. Every metric takes its worst value.",
    }
)
_LEGEND_COLOURS = 17


def render_page(document: Mapping[str, Any], tiles: Mapping[int, tuple[Tile, ...]]) -> str:
    """Draw the page.

    Args:
        document: As `report_document` gives it; every number on the page comes from it.
        tiles: Pictures of every sample under "samples/shown".

    Returns:
        HTML, UTF-8 text. Everything from `document` is escaped.
    """
    style = resources.files("edgekit.report").joinpath("templates/report.css").read_text(encoding="utf-8")
    charts = {
        name: histogram_chart(described)
        for name, described in document["distributions"].items()
        if described["histogram"] is not None
    }
    return (
        page_environment()
        .get_template("report.html.j2")
        .render(
            doc=document,
            n=NumberPrinter(document),
            tiles=tiles,
            charts=charts,
            style=style,
            # The page's policy lets in this style sheet and nothing else: markup that slipped through would be inert.
            style_hash="sha256-" + base64.b64encode(hashlib.sha256(style.encode("utf-8")).digest()).decode("ascii"),
            class_rows=list(range(min(LARGEST_CLASS_TABLE, len(document["classes"]["rows"])))),
            largest_groups=_LARGEST_GROUPS,
            whisker_chart=whisker_chart,
            WIDE=WIDE,
            SLIM=SLIM,
            recipe=json.dumps(document["recipe"], indent=2, ensure_ascii=False, sort_keys=True),
            metric_words={name: metric.description for name, metric in METRICS.items()},
            stage_words=_STAGE_WORDS,
            state_words=_STATE_WORDS,
            map_stops=_stops(map_colours, map_over_grey, 0.0),
            difference_stops=_stops(difference_over_grey, difference_over_grey, -1.0),
        )
    )


def _stops(
    pure: Callable[[_Values], _Colours], drawn: Callable[[_Values], _Colours], low: float
) -> list[tuple[str, str, str]]:
    """Of a legend from `low` to 1: offset, colour of the scale, and colour as it is drawn over a grey image."""
    values = np.linspace(low, 1.0, _LEGEND_COLOURS)
    offsets = np.linspace(0.0, 1.0, _LEGEND_COLOURS)
    return [
        (f"{offset:.4f}", _hex(scale), _hex(seen))
        for offset, scale, seen in zip(offsets, pure(values), drawn(values), strict=True)
    ]


def _hex(colour: Any) -> str:
    return "#" + "".join(f"{round(float(channel)):02x}" for channel in colour)
