"""The pages in a real browser: their own policy lets everything in that they need, and they fit narrow and wide."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from blame_bundles import harmed_table, make_bundle
from explained_graphs import GRAPHS
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "unit"))
from test_report_example import Case, example_report

from edgekit import api
from edgekit.blame.options import BlameOptions
from edgekit.policy.document import load_preset
from edgekit.report.write import write_report

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(BROWSER is None, reason="needs chromium or Google Chrome to draw the page"),
]

# Without the page's own policy, which rightly keeps this out.
PROBE = """<script>addEventListener("load", () => {
  const wide = [...document.querySelectorAll("body *")].filter(e => e.getBoundingClientRect().right > innerWidth + 1
    && !e.closest(".scroll") && !e.closest("pre") && !e.classList.contains("skip"));
  const charts = [...document.querySelectorAll("svg.chart")];
  document.documentElement.setAttribute("data-found", JSON.stringify({
    scroll: document.documentElement.scrollWidth, width: innerWidth,
    wide: wide.slice(0, 5).map(e => e.tagName + "." + e.className),
    broken: [...document.images].filter(i => !i.naturalWidth).length, images: document.images.length,
    flat: charts.filter(e => e.getBoundingClientRect().height < 40).length, charts: charts.length,
    text: getComputedStyle(document.body).color,
  }));
});</script>"""


def browse(page: Path, profile: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    assert BROWSER is not None
    quiet = (
        "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
        "--disable-component-update --disable-sync --hide-scrollbars --enable-logging=stderr"
    )
    command = [BROWSER, *quiet.split(), f"--user-data-dir={profile}", *arguments, page.as_uri()]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)


LONG = "a-class-name-without-any-place-to-break-it-" * 4


def report_page(folder: Path) -> Path:
    case = Case(noise=0.9, flips=0.3, classes=(LONG, "square", "cross", "bar"))
    finding = {"fault": "map-shifted", "text": "The maps are shifted.", "before": 0.6, "after": 0.9}
    write_report(example_report(case, load_preset("strict"), findings=(finding,)), folder)
    return folder / "report.html"


def blame_page(folder: Path) -> Path:
    """With all its parts: a hop that breaks the policy, charts, classes and a list of what to leave in float."""
    model = GRAPHS["residual"]()
    model.graph.node[0].name = LONG
    made = make_bundle(
        folder / "bundle",
        graph=model,
        table=lambda table: harmed_table(table, "relu_4", 200.0),
        classes=(LONG, "b", "c", "d", "e"),
    )
    api.blame(made.folder, output=folder / "blame", options=BlameOptions(exclude_worst=2))
    return folder / "blame" / "blame.html"


# How to make each page, and how many pictures and charts it has at least.
PAGES: dict[str, tuple[Callable[[Path], Path], int, int]] = {
    "report": (report_page, 40, 1),
    "blame": (blame_page, 0, 4),
}


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {name: make(tmp_path_factory.mktemp(name)) for name, (make, _, _) in PAGES.items()}


@pytest.mark.parametrize("name", PAGES)
@pytest.mark.parametrize(("scheme", "paper"), [("dark", (21, 23, 26)), ("light", (253, 253, 252))])
def test_the_pages_policy_admits_its_own_style_and_pictures(
    pages: dict[str, Path], name: str, tmp_path: Path, scheme: str, paper: tuple[int, int, int]
) -> None:
    shot = tmp_path / "shot.png"
    setting = f"--blink-settings=preferredColorScheme={0 if scheme == 'dark' else 1}"
    done = browse(pages[name], tmp_path / "profile", setting, "--window-size=1200,900", f"--screenshot={shot}")
    assert "Content Security Policy" not in done.stderr
    assert "CONSOLE" not in done.stderr
    pixels = np.asarray(Image.open(shot).convert("RGB"))
    # The style sheet was let in: the paper has its colour, and the verdict's frame is drawn.
    assert tuple(pixels[2, 2].tolist()) == paper
    assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 200


@pytest.mark.parametrize("name", PAGES)
@pytest.mark.parametrize("width", [500, 1400])
def test_nothing_sticks_out_of_the_page(pages: dict[str, Path], name: str, tmp_path: Path, width: int) -> None:
    _, images, charts = PAGES[name]
    html = re.sub(r"<meta http-equiv=[^>]*>", "", pages[name].read_text(encoding="utf-8"))
    probed = tmp_path / "probed.html"
    probed.write_text(html.replace("</head>", PROBE + "</head>"), encoding="utf-8")
    dom = browse(probed, tmp_path / "profile", f"--window-size={width},1000", "--dump-dom").stdout
    match = re.search(r'data-found="([^"]*)"', dom)
    assert match is not None
    found: dict[str, Any] = json.loads(unescape(match[1]))
    assert found["width"] == width
    assert found["scroll"] <= width
    assert found["wide"] == []
    assert found["images"] >= images
    assert found["broken"] == 0
    assert found["charts"] >= charts
    assert found["flat"] == 0
