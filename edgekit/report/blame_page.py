"""Blame and hop ledger as one HTML file that needs nothing else, drawn from `blame.json` alone."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from importlib import resources
from types import MappingProxyType
from typing import Any

from edgekit.core.canonical import dump_canonical, parse_strict
from edgekit.metrics.agreement import METRICS
from edgekit.report.blame_chart import depth_chart
from edgekit.report.clauses import interval_axis
from edgekit.report.numbers import NumberPrinter, pointer
from edgekit.report.page_environment import page_environment
from edgekit.report.whiskers import SLIM, WIDE, whisker_chart

__all__ = ["LARGEST_TENSOR_TABLE", "drift_in_words", "render_blame_page"]

LARGEST_TENSOR_TABLE = 100
"""Rows of the table of tensors on the page, the worst ones; the JSON has all."""

_MEASURES: Mapping[str, str] = MappingProxyType(
    {
        "cosine": "1 - cosine of the maps",
        "spearman": "1 - rank correlation of the maps",
        "iou": "1 - overlap of the strongest 20 % of the maps",
        "logits": "divergence of the answers, nats",
    }
)
_STYLE = """
.depth-chart { max-width: 60rem; min-width: 36rem; }
.key.depth-chart { min-width: 0; }
.banner.said { grid-template-columns: 1fr; }
.banner.said .headline { grid-column: 1; }
.hops td { font-variant-numeric: tabular-nums; }
.depth-chart .whisker { stroke: var(--bar); stroke-width: 1; stroke-opacity: .55; }
.depth-chart .activation { fill: var(--bar); }
.depth-chart .weight { fill: var(--page); stroke: var(--missed); stroke-width: 1.6; }
.depth-chart .left-out { stroke: var(--quiet); stroke-width: 1.6; }
.depth-chart .together { stroke: var(--fail); stroke-width: 1.5; stroke-dasharray: 6 4; }
.depth-chart .together-text { fill: var(--fail); font-size: 10.5px; text-anchor: end; }
.hops th, .hops td { padding-inline: .4rem; }
@media print { .depth-chart { min-width: 0; } }
"""


def drift_in_words(value: float | None) -> str:
    """A drift for a person: two digits and a power of ten, since drift spans many of them."""
    if value is None:
        return "n/a"
    return "0" if value == 0 else f"{value:.1e}".replace("e-0", "e-").replace("e+0", "e")


def render_blame_page(document: Mapping[str, Any]) -> str:
    """Draw the page.

    Args:
        document: As `blame.json` holds it; every number on the page comes from it.

    Returns:
        HTML, UTF-8 text. Everything from `document` is escaped.

    Raises:
        UnavailableError: Jinja2 is not installed.
    """
    # Read back at once: the page is drawn from what a reader of the file gets, lists for tuples included.
    doc = parse_strict(dump_canonical(document), where="blame.json")
    style = resources.files("edgekit.report").joinpath("templates/report.css").read_text(encoding="utf-8") + _STYLE
    found = doc["blame"]
    charts = {} if found is None else {name: depth_chart(found, name) for name in _MEASURES}
    return (
        page_environment()
        .get_template("blame.html.j2")
        .render(
            doc=doc,
            n=NumberPrinter(doc),
            d=_Drifts(doc),
            charts=charts,
            measures=_MEASURES,
            metrics={name: metric.description for name, metric in METRICS.items()},
            rows=0 if found is None else min(LARGEST_TENSOR_TABLE, len(found["tensors"])),
            hop_ticks=_hop_ticks(doc),
            whisker_chart=whisker_chart,
            WIDE=WIDE,
            SLIM=SLIM,
            style=style,
            style_hash="sha256-" + base64.b64encode(hashlib.sha256(style.encode("utf-8")).digest()).decode("ascii"),
        )
    )


def _hop_ticks(doc: Mapping[str, Any]) -> list[float]:
    """The axis that the cosines of all hops share."""
    found = [hop["against_teacher"]["means"]["cosine"] for hop in doc["ledger"]["hops"] if hop["against_teacher"]]
    metric = METRICS["cosine"]
    return interval_axis(found, unit="score", best=metric.best, limits=(metric.worst, metric.best))


class _Drifts:
    """Shows drifts of one document, each tied to its place in it."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        self._numbers = NumberPrinter(document)

    def text(self, *path: str | int) -> str:
        """The drift at a path as text."""
        return drift_in_words(self._numbers.value(*path))

    def __call__(self, *path: str | int) -> Any:
        """The drift at a path as HTML."""
        from markupsafe import Markup

        value = self._numbers.value(*path)
        return Markup('<data value="{}" data-path="{}">{}</data>').format(
            "" if value is None else repr(value), pointer(*path), drift_in_words(value)
        )
