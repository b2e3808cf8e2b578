"""How the stored bundles were made; run by hand for a new format, never to replace an old file.

    python tests/golden/make_bundle.py tests/golden/bundle-1.tar

A bundle stored here was written by a released format and must keep opening, passing its gate and verifying for ever.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

from edgekit import api
from edgekit.calibrate.options import CalibrateOptions
from edgekit.compress.options import CompressOptions, FinetuneOptions, PruneOptions
from edgekit.config.recipe import Recipe
from edgekit.demo.dataset import DemoSizes, write_demo_dataset
from edgekit.demo.network import teacher_path
from edgekit.teacher.options import GoldenOptions

RECIPE = Recipe(
    golden=GoldenOptions(samples=60),
    compress=CompressOptions(prune=PruneOptions(rate=0.2), finetune=FinetuneOptions(epochs=2, learning_rate=0.02)),
    calibrate=CalibrateOptions(images=64),
    policy="lenient",
)


def main() -> None:
    """Build once and store the tar file."""
    destination = Path(sys.argv[1])
    if destination.exists():
        raise SystemExit(f"{destination} is there: a stored bundle is never replaced")
    with tempfile.TemporaryDirectory() as folder:
        images = Path(folder) / "images"
        write_demo_dataset(images, DemoSizes(train=600, val=120), seed=0)
        result = api.build(teacher_path(), data=images, output=Path(folder) / "build", recipe=RECIPE)
        shutil.copy(result.archive, destination)
        print(f"{destination}: {result.manifest.status}, {destination.stat().st_size} bytes")


if __name__ == "__main__":
    main()
