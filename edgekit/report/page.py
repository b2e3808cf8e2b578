"""The report as one HTML file that needs nothing else: no network, no script, no font."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from importlib import resources
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from edgekit.metrics.agreement import METRICS
from edgekit.report.charts import histogram_chart
from edgekit.report.colours import ENGINE_HUE, TEACHER_HUE, map_colours
from edgekit.report.numbers import NumberPrinter
from edgekit.report.page_environment import page_environment
from edgekit.report.samples import Tile

if TYPE_CHECKING:
    pass

__all__ = ["LARGEST_CLASS_TABLE", "render_page"]

LARGEST_CLASS_TABLE = 60
"""Rows of the class table on the page; with more classes the ones that agree least are shown. The JSON has all."""

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
_VIEW_COLOURS = 9


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
            class_rows=_class_rows(document),
            recipe=json.dumps(document["recipe"], indent=2, ensure_ascii=False, sort_keys=True),
            metric_words={name: metric.description for name, metric in METRICS.items()},
            stage_words=_STAGE_WORDS,
            state_words=_STATE_WORDS,
            scale_stops=_scale_stops(),
            hues={"engine": _hex(ENGINE_HUE), "teacher": _hex(TEACHER_HUE)},
        )
    )


def _class_rows(document: Mapping[str, Any]) -> list[int]:
    """Places of the rows to show, in class order; of too many, those that agree least."""
    rows = document["classes"]["rows"]
    places = sorted(range(len(rows)), key=lambda place: (rows[place]["agreement"], place))
    return sorted(places[:LARGEST_CLASS_TABLE])


def _scale_stops() -> list[tuple[str, str]]:
    """Offset and colour of a legend of the map scale."""
    places = np.linspace(0.0, 1.0, _VIEW_COLOURS)
    return [(f"{place:.3f}", _hex(colour)) for place, colour in zip(places, map_colours(places), strict=True)]


def _hex(colour: Any) -> str:
    return "#" + "".join(f"{round(float(channel)):02x}" for channel in colour)
