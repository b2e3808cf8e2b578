"""Draw the README's picture from the two builds of a demo.

    edgekit demo --output DEMO
    python benchmarks/readme_picture.py DEMO

The samples are those that teacher and unmatched build both label rightly and whose maps moved most; both builds are
shown on the same ones. Writes benchmarks/results/demo.png.
"""

from __future__ import annotations

import argparse
import io
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from edgekit.bundle.golden import read_golden
from edgekit.metrics.scores_io import read_scores
from edgekit.report.sheet import comparison_sheet

PICTURE = Path(__file__).resolve().parent / "results" / "demo.png"
TITLES = {
    "matched": "released: pruned and fine-tuned with the map held to the teacher's",
    "unmatched": "blocked: pruned harder and fine-tuned for the label alone",
}
SAMPLES = 6


def main() -> None:
    """Draw the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("demo", type=Path)
    demo = parser.parse_args().demo
    stages = {name: demo / name / "stages" for name in TITLES}
    golden = read_golden(stages["matched"] / "golden")
    drifted = read_scores(stages["unmatched"] / "verify-int8" / "scores.json")
    right = drifted.agrees & (golden.teacher_class == golden.labels)
    cosine = np.where(right, drifted.metrics["cosine"], np.inf)
    # One sample a class, so that the picture shows kinds and not one odd object six times.
    order = [int(index) for index in np.argsort(cosine)]
    first = {int(golden.teacher_class[index]): index for index in reversed(order)}
    chosen = sorted(first.values(), key=lambda index: float(cosine[index]))[:SAMPLES]
    parts = []
    for name, title in TITLES.items():
        folder = stages[name] / "verify-int8"
        maps = np.load(folder / "engine_maps.npy", allow_pickle=False)[0]
        table = read_scores(folder / "scores.json")
        sheet = Image.open(io.BytesIO(comparison_sheet(golden, maps, chosen, engine_class=table.engine_class)))
        parts.append(_titled(sheet.convert("RGB"), title))
    picture = Image.new("RGB", (max(part.width for part in parts), sum(part.height for part in parts)), "white")
    top = 0
    for part in parts:
        picture.paste(part, (0, top))
        top += part.height
    PICTURE.parent.mkdir(exist_ok=True)
    picture.quantize(256, method=Image.Quantize.MEDIANCUT).save(PICTURE, optimize=True)
    print(f"{PICTURE}: {PICTURE.stat().st_size / 1024:.0f} KiB, samples {chosen}")


def _titled(sheet: Image.Image, title: str) -> Image.Image:
    band = 34
    framed = Image.new("RGB", (sheet.width, sheet.height + band), "white")
    ImageDraw.Draw(framed).text((10, 8), title, fill="black", font=ImageFont.load_default(18))
    framed.paste(sheet, (0, band))
    return framed


if __name__ == "__main__":
    main()
