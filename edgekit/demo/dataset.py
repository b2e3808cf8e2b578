"""The demo's images as files: what a user's own folder would look like."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edgekit.core.canonical import JsonValue
from edgekit.core.files import foreign_os_errors
from edgekit.core.progress import NULL_OBSERVER, Observer, track
from edgekit.core.stages import RECORD_NAME, Stage, StageRecord, run_stage
from edgekit.demo.images import CLASSES, draw_image
from edgekit.errors import BadInputError, UnavailableError

__all__ = ["DEMO_SIZES", "DemoSizes", "write_demo_dataset"]

# Raised whenever other pixels are drawn for the same seed, so that old folders are not taken for new ones.
_VERSION = 1


@dataclass(frozen=True)
class DemoSizes:
    """Number of images in each split."""

    train: int = 1000
    val: int = 300


# Drawn in some four seconds, and fine-tuned on for six epochs in some fifteen, on two quiet cores.
DEMO_SIZES = DemoSizes()


def write_demo_dataset(
    folder: Path, sizes: DemoSizes = DEMO_SIZES, seed: int = 0, observer: Observer = NULL_OBSERVER
) -> StageRecord:
    """Draw the demo's images into `folder`: images/ and masks/ as PNG, and a labels.csv with splits.

    A folder that already holds exactly these images is left as it is; an interrupted call leaves nothing behind
    under the folder's name.

    Raises:
        BadInputError: The folder holds something else, or cannot be written.
        UnavailableError: Pillow is not installed, or the disk is full.
    """
    _refuse_foreign(folder)
    options: dict[str, JsonValue] = {**asdict(sizes), "seed": seed}
    stage = Stage("demo-images", _VERSION, options, inputs={})
    return run_stage(stage, folder, lambda staging: _draw(staging, sizes, seed, observer), observer)


def _refuse_foreign(folder: Path) -> None:
    with foreign_os_errors(folder, "use the folder for the demo's images"):
        foreign = folder.exists() and any(folder.iterdir()) and not (folder / RECORD_NAME).is_file()
    if foreign:
        raise BadInputError(
            "The folder for the demo's images holds something else.",
            where=str(folder),
            expected="a new or empty folder, or one that an earlier demo filled",
        )


def _draw(staging: Path, sizes: DemoSizes, seed: int, observer: Observer) -> Mapping[str, JsonValue]:
    table = io.StringIO(newline="")
    rows = csv.writer(table, lineterminator="\n")
    rows.writerow(("image", "label", "split", "mask"))
    jobs = [(split, index) for split, count in asdict(sizes).items() for index in range(count)]
    for split in asdict(sizes):
        (staging / "images" / split).mkdir(parents=True)
        (staging / "masks" / split).mkdir(parents=True)
    for split, index in track(jobs, "drawing images", observer):
        drawn = draw_image(seed, split, index)
        name = f"{split}/{index:05}-{CLASSES[drawn.label]}.png"
        _save_png(staging / "images" / name, drawn.pixels)
        _save_png(staging / "masks" / name, drawn.mask)
        rows.writerow((f"images/{name}", CLASSES[drawn.label], split, f"masks/{name}"))
    (staging / "labels.csv").write_text(table.getvalue(), encoding="utf-8")
    return {"summary": f"{sizes.train} training and {sizes.val} validation images of {len(CLASSES)} classes"}


def _save_png(path: Path, values: npt.NDArray[np.uint8] | npt.NDArray[np.bool_]) -> None:
    try:
        from PIL import Image
    except ModuleNotFoundError as cause:
        raise UnavailableError(
            "Writing image files needs Pillow, which is not installed.", hint="pip install 'edgekit[images]'"
        ) from cause
    # Noise hardly compresses: the fastest level writes files a few per cent larger in a third of the time.
    Image.fromarray(values).save(path, "PNG", compress_level=1)
