"""The pages in a real browser: their own policy lets in what they need, and everybody can read and use them."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from blame_bundles import harmed_table, make_bundle
from chromium import BROWSER, Chromium, chromium
from explained_graphs import GRAPHS
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "unit"))
from test_report_example import Case, example_blame, example_report

from edgekit import api
from edgekit.blame.options import BlameOptions
from edgekit.policy.document import load_preset
from edgekit.report.data import ControlSummary
from edgekit.report.write import write_report

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(BROWSER is None, reason="needs chromium or Google Chrome to draw the page"),
]

LONG = "a-class-name-without-any-place-to-break-it-" * 4
HOSTILE = "</title></style></script><script>alert(1)</script><img src=x onerror=alert(1)><b>\"'&amp;"
PAPERS = {"dark": (21, 23, 26), "light": (253, 253, 252)}
CONTROLS = (
    ControlSummary("centre-prior", "fail", ("mean spearman >= 0.80",)),
    ControlSummary("permuted-maps", "inconclusive"),
)


def report_page(folder: Path) -> Path:
    """With all its parts: findings, controls, hops, and names that have no place to break."""
    case = Case(noise=0.9, flips=0.3, classes=(LONG, "square", "cross", "bar"))
    finding = {"fault": "map-shifted", "text": "The maps are shifted.", "before": 0.6, "after": 0.9}
    told = {"findings": (finding,), "controls": CONTROLS, "controls_state": "ran", "blame": example_blame()}
    write_report(example_report(case, load_preset("strict"), **told), folder)
    return folder / "report.html"


def hostile_page(folder: Path) -> Path:
    """Whatever somebody else may name is markup."""
    policy = replace(load_preset("lenient"), name=HOSTILE)
    data = example_report(Case(classes=tuple(f"{HOSTILE}{index}" for index in range(4))), policy, title=HOSTILE)
    names = tuple(f"{HOSTILE}{index}.png" for index in range(len(data.golden)))
    write_report(replace(data, golden=replace(data.golden, names=names)), folder)
    return folder / "report.html"


def blame_page(folder: Path) -> Path:
    """With all its parts: a hop that breaks the policy, charts, classes and a list of what to leave in float."""
    model = GRAPHS["residual"]()
    model.graph.node[0].name = LONG
    made = make_bundle(
        folder / "bundle",
        graph=model,
        table=lambda table: harmed_table(table, "relu_4", 200.0),
        classes=(LONG, HOSTILE, "c", "d", "e"),
    )
    api.blame(made.folder, output=folder / "blame", options=BlameOptions(exclude_worst=2))
    return folder / "blame" / "blame.html"


# How to make each page, and how many pictures and charts it has at least.
PAGES: dict[str, tuple[Callable[[Path], Path], int, int]] = {
    "report": (report_page, 40, 16),
    "hostile": (hostile_page, 40, 12),
    "blame": (blame_page, 0, 4),
}

# What sticks out of the window without a box that scrolls; pictures that are not there; charts without a height.
LOOK = """(() => {
  const wide = [...document.querySelectorAll("body *")].filter(e => e.getBoundingClientRect().right > innerWidth + 1
    && !e.closest(".scroll") && !e.closest("pre") && !e.classList.contains("skip"));
  const charts = [...document.querySelectorAll("svg.chart")];
  return {
    scroll: document.documentElement.scrollWidth, width: innerWidth,
    wide: wide.slice(0, 5).map(e => e.tagName + "." + e.getAttribute("class")),
    broken: [...document.images].filter(i => !i.complete || !i.naturalWidth || !i.naturalHeight).length,
    images: document.images.length,
    flat: charts.filter(e => e.getBoundingClientRect().height < 30).length, charts: charts.length,
  };
})()"""
FOCUSED = """(() => {
  const e = document.activeElement, box = e.getBoundingClientRect(), style = getComputedStyle(e);
  return {tag: e.tagName, kind: e.getAttribute("class"), href: e.getAttribute("href"),
    seen: box.width > 0 && box.right > 0 && box.bottom > 0 && box.left < innerWidth && box.top < innerHeight,
    outline: style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 2};
})()"""


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {name: make(tmp_path_factory.mktemp(name)) for name, (make, _, _) in PAGES.items()}


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium]:
    with chromium(tmp_path_factory.mktemp("browser") / "profile") as browser:
        yield browser


@pytest.mark.parametrize("name", PAGES)
@pytest.mark.parametrize("scheme", PAPERS)
def test_the_pages_policy_admits_its_own_style_and_pictures(
    pages: dict[str, Path], tab: Chromium, name: str, tmp_path: Path, scheme: str
) -> None:
    tab.open(pages[name], width=1200, prefers_color_scheme=scheme)
    shot = tab.screenshot(tmp_path / "shot.png")
    assert tab.trouble == []
    pixels = np.asarray(Image.open(shot).convert("RGB"))
    # The style sheet was let in: the paper has its colour, and the verdict's frame is drawn.
    assert tuple(pixels[2, 2].tolist()) == PAPERS[scheme]
    assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 200


@pytest.mark.parametrize("name", PAGES)
@pytest.mark.parametrize(
    ("width", "media"),
    [(390, {}), (700, {}), (1400, {}), (720, {"media": "print"})],
    ids=["phone", "tablet", "wide", "paper"],
)
def test_nothing_sticks_out_of_the_page(
    pages: dict[str, Path], tab: Chromium, name: str, width: int, media: dict[str, str]
) -> None:
    _, images, charts = PAGES[name]
    tab.open(pages[name], width=width, **media)
    found: dict[str, Any] = tab.evaluate(LOOK)
    assert found["width"] == width
    assert found["scroll"] <= width
    assert found["wide"] == []
    assert found["images"] >= images
    assert found["broken"] == 0
    assert found["charts"] >= charts
    assert found["flat"] == 0


def test_a_fault_of_a_page_would_be_noticed(pages: dict[str, Path], tab: Chromium, tmp_path: Path) -> None:
    html = pages["report"].read_text(encoding="utf-8")
    spoiled = tmp_path / "spoiled.html"
    spoiled.write_text(
        html.replace("</main>", '<script>alert(1)</script><img src="https://example.invalid/x.png" alt="x"></main>'),
        encoding="utf-8",
    )
    tab.open(spoiled, width=1200)
    told = json.dumps(tab.trouble)
    assert "script-src" in told or "default-src" in told
    assert tab.evaluate(LOOK)["broken"] == 1


def test_hostile_names_stay_words(pages: dict[str, Path], tab: Chromium) -> None:
    tab.open(pages["hostile"], width=1200)
    assert tab.trouble == []
    assert tab.evaluate("document.title") == f"{HOSTILE} on cpu: released"
    assert tab.evaluate("document.querySelector('h1').textContent").startswith(HOSTILE)
    assert tab.evaluate("document.querySelectorAll('script, b > b, img:not([src^=\"data:image/jpeg\"])').length") == 0
    rows = tab.evaluate("[...document.querySelectorAll('table.classes tbody th')].map(cell => cell.textContent)")
    assert sorted(rows) == [f"{HOSTILE}{index}" for index in range(4)]
    words = tab.evaluate("document.body.textContent")
    assert f"The policy “{HOSTILE}”" in words
    assert f"{HOSTILE}0.png" in words or words.count(".png") > 10
    alt = tab.evaluate("document.images[0].alt")
    assert alt.startswith(f"Input image {HOSTILE}")


@pytest.mark.parametrize("name", PAGES)
def test_the_keyboard_reaches_everything_and_shows_where_it_is(
    pages: dict[str, Path], tab: Chromium, name: str
) -> None:
    tab.open(pages[name], width=390)
    tab.press("Tab", 9)
    first = tab.evaluate(FOCUSED)
    assert (first["kind"], first["href"], first["seen"]) == ("skip", "#main", True)
    tab.press("Enter", 13, "\r")
    assert tab.evaluate("location.hash") == "#main"
    reached = set()
    for _ in range(40):
        tab.press("Tab", 9)
        focused = tab.evaluate(FOCUSED)
        if focused["tag"] == "BODY":
            break
        assert focused["outline"], focused
        reached.add(focused["kind"] or focused["tag"])
    assert "scroll" in reached
    # Whatever scrolls can be focused.
    assert (
        tab.evaluate(
            """[...document.querySelectorAll("body *")].filter(e => e.scrollWidth > e.clientWidth + 1
        && getComputedStyle(e).overflowX === "auto" && e.tabIndex !== 0).length"""
        )
        == 0
    )


def test_a_sample_is_enlarged_and_details_open_by_key(pages: dict[str, Path], tab: Chromium) -> None:
    tab.open(pages["report"], width=1400, prefers_reduced_motion="reduce")
    width = "document.querySelector('.sample img').getBoundingClientRect().width"
    small = tab.evaluate(width)
    tab.evaluate("document.querySelector('.sample .name').focus()")
    tab.press("Enter", 13, "\r")
    assert tab.evaluate(width) > 1.5 * small
    tab.evaluate("document.querySelector('.sample:target .back a').focus()")
    tab.press("Enter", 13, "\r")
    assert tab.evaluate(width) == small
    tab.evaluate("document.querySelector('#reproduce summary').focus()")
    assert tab.evaluate("document.querySelector('#reproduce details').open") is False
    tab.press("Enter", 13, "\r")
    assert tab.evaluate("document.querySelector('#reproduce details').open") is True


@pytest.mark.parametrize(("wish", "behaviour"), [("reduce", "auto"), ("no-preference", "smooth")])
def test_nothing_moves_where_no_motion_is_wished(
    pages: dict[str, Path], tab: Chromium, wish: str, behaviour: str
) -> None:
    tab.open(pages["report"], width=1400, prefers_reduced_motion=wish)
    assert tab.evaluate("getComputedStyle(document.documentElement).scrollBehavior") == behaviour


def test_paper_shows_what_a_click_would(pages: dict[str, Path], tab: Chromium) -> None:
    recipe = "document.querySelector('.recipe').checkVisibility()"
    tab.open(pages["report"], width=720)
    assert tab.evaluate(recipe) is False
    tab.open(pages["report"], width=720, media="print", prefers_color_scheme="dark")
    assert tab.evaluate(recipe) is True
    assert tab.evaluate("getComputedStyle(document.querySelector('nav')).display") == "none"
    # Ink on white, also for who reads screens in the dark.
    assert tab.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert tab.evaluate("getComputedStyle(document.body).color") == "rgb(0, 0, 0)"
    # No box hides a part of what it holds.
    assert (
        tab.evaluate(
            """[...document.querySelectorAll(".scroll, pre")].filter(e => e.scrollWidth > e.clientWidth + 1
        || e.scrollHeight > e.clientHeight + 1).map(e => e.getAttribute("aria-label"))"""
        )
        == []
    )
    assert tab.print_pdf().startswith(b"%PDF-")
