"""The plot of a precision budget in both formats."""

from __future__ import annotations

import io
from dataclasses import replace
from xml.etree import ElementTree

import pytest
from PIL import Image

from edgekit.report.pareto import ParetoChart, ParetoPoint, draw_png, draw_svg

SVG = "{http://www.w3.org/2000/svg}"
POINTS = (
    ParetoPoint("int8", 2.0, 1e-2, holds=False, chosen=False),
    ParetoPoint("mixed-1", 2.5, 1e-4, holds=True, chosen=True),
    ParetoPoint("mixed-2", 3.0, 1e-3, holds=True, chosen=False),
    ParetoPoint("fp32", 4.0, 0.0, holds=True, chosen=False),
)
CHART = ParetoChart(POINTS, "latency, ms", "map drift", "A budget")


def marks(svg: str) -> dict[str, tuple[float, float]]:
    """Name of each point to its place."""
    root = ElementTree.fromstring(svg)
    circles = [item for item in root.iter(f"{SVG}circle") if item.find(f"{SVG}title") is not None]
    return {str(item.findtext(f"{SVG}title")): (float(item.attrib["cx"]), float(item.attrib["cy"])) for item in circles}


def test_every_candidate_is_drawn_once_with_its_numbers() -> None:
    svg = draw_svg(CHART)
    assert set(marks(svg)) == {point.name for point in POINTS}
    for point in POINTS:
        assert f'data-cost="{point.cost!r}" data-drift="{point.drift!r}"' in svg
    assert svg.count('r="9"') == 1


def test_places_follow_the_numbers() -> None:
    places = marks(draw_svg(CHART))
    across = [places[name][0] for name in ("int8", "mixed-1", "mixed-2", "fp32")]
    assert across == sorted(across)
    # Upwards is more drift, and the canvas counts downwards; equal ratios are equal distances.
    heights = [places[name][1] for name in ("int8", "mixed-2", "mixed-1")]
    assert heights[1] - heights[0] == pytest.approx(heights[2] - heights[1], abs=0.02)
    assert places["fp32"][1] > places["mixed-1"][1]


def test_the_line_goes_through_what_no_other_beats() -> None:
    svg, places = draw_svg(CHART), marks(draw_svg(CHART))
    line = ElementTree.fromstring(svg).find(f"{SVG}polyline")
    assert line is not None
    corners = [tuple(map(float, corner.split(","))) for corner in line.attrib["points"].split()]
    assert corners == [places[name] for name in ("int8", "mixed-1", "fp32")]


def test_hostile_names_stay_text() -> None:
    evil = '</title><script>alert("x")</script>&\n'
    chart = replace(CHART, points=(replace(POINTS[0], name=evil),), title=evil, cost_label=evil, drift_label=evil)
    root = ElementTree.fromstring(draw_svg(chart))
    assert not list(root.iter(f"{SVG}script"))
    assert Image.open(io.BytesIO(draw_png(chart))).size == (1440, 880)


@pytest.mark.parametrize(
    "points",
    [
        (ParetoPoint("a", 0.0, 0.0, holds=True, chosen=True),),
        (ParetoPoint("a", 1e-9, None, holds=False, chosen=False),),
        tuple(ParetoPoint(f"p{n}", 1.0, 1e-3, holds=True, chosen=False) for n in range(9)),
        (ParetoPoint("a", 1e6, 2.0, holds=False, chosen=False),),
    ],
    ids=["zero", "not finite", "all alike", "large"],
)
def test_odd_numbers_are_drawn(points: tuple[ParetoPoint, ...]) -> None:
    chart = replace(CHART, points=points)
    for x, y in marks(draw_svg(chart)).values():
        assert 0 <= x <= 720
        assert 0 <= y <= 440
    with Image.open(io.BytesIO(draw_png(chart))) as picture:
        assert picture.convert("RGB").getextrema() != ((255, 255),) * 3


def test_equal_charts_give_equal_bytes() -> None:
    assert draw_svg(CHART) == draw_svg(CHART)
    assert draw_png(CHART) == draw_png(CHART)
