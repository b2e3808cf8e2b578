"""How the stored bundles were made; run by hand for a new format, never to replace an old file.

    python tests/golden/make_bundle.py tests/golden/bundle-2.tar

A bundle stored here was written by a released format and must keep opening, passing its gate and verifying for ever.
`bundle-1.tar` is from before there were controls; its recipe was `_RECIPE` with the policy "lenient" and 60 samples.
Beside the bundle its signature is stored, as `bundle-2.intoto.json`, with the public key; the private one is dropped.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from edgekit import api
from edgekit.bundle.layout import ENVELOPE
from edgekit.bundle.open import open_bundle
from edgekit.calibrate.options import CalibrateOptions
from edgekit.compress.options import CompressOptions, FinetuneOptions, PruneOptions
from edgekit.config.recipe import Recipe
from edgekit.demo.dataset import DemoSizes, write_demo_dataset
from edgekit.demo.network import teacher_path
from edgekit.policy.clauses import AgreementClause, MeanClause, ShareClause
from edgekit.policy.policy import Policy
from edgekit.release.sign import release
from edgekit.signing.private import new_private_key
from edgekit.teacher.options import GoldenOptions

_RECIPE = Recipe(
    golden=GoldenOptions(samples=96),
    compress=CompressOptions(prune=PruneOptions(rate=0.2), finetune=FinetuneOptions(epochs=2, learning_rate=0.02)),
    calibrate=CalibrateOptions(images=64),
)
_POLICY = Policy(
    "stored",
    0.95,
    (ShareClause("cosine", 0.8, 0.85), AgreementClause(0.8), MeanClause("cosine", 0.7, interval="exact")),
    20,
    sequential=True,
)


def main() -> None:
    """Build once, and store the tar file, its signature and the public key."""
    destination = Path(sys.argv[1])
    if destination.exists():
        raise SystemExit(f"{destination} is there: a stored bundle is never replaced")
    with tempfile.TemporaryDirectory() as folder:
        images = Path(folder) / "images"
        write_demo_dataset(images, DemoSizes(train=600, val=160), seed=0)
        recipe = replace(_RECIPE, policy=_POLICY.to_dict())
        result = api.build(teacher_path(), data=images, output=Path(folder) / "build", recipe=recipe)
        shutil.copy(result.archive, destination)
        print(f"{destination}: {result.manifest.status}, {destination.stat().st_size} bytes")
        key = new_private_key()
        release(result.folder, key)
        with open_bundle(result.folder) as opened:
            shutil.copy(opened.folder / ENVELOPE, destination.with_suffix(".intoto.json"))
        destination.with_suffix(".pub").write_bytes(key.public.to_pem())


if __name__ == "__main__":
    main()
