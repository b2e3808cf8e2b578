"""The demo: the main job twice, once so that the maps hold and once so that they do not.

Both builds are real and nothing about their outcome is arranged: the same teacher, the same images, the same policy.
They differ in the recipe. The first prunes moderately and holds the student's map to the teacher's while fine-tuning;
the second prunes harder and fine-tunes for the label alone, on images whose background gives the class away.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from edgekit.compress.options import CompressOptions, FinetuneOptions, MatchingOptions, PruneOptions
from edgekit.config.recipe import Recipe
from edgekit.core.files import atomic_directory, foreign_os_errors
from edgekit.core.progress import NULL_OBSERVER, Observer
from edgekit.demo.dataset import write_demo_dataset
from edgekit.demo.network import teacher_path
from edgekit.errors import DefectError
from edgekit.pipeline.build import BuildRequest, build
from edgekit.pipeline.folders import BuildFolders
from edgekit.pipeline.release import BuildResult
from edgekit.targets.loader import check_target_runs_here, resolve_target

__all__ = ["DemoResult", "matched_recipe", "run_demo", "unmatched_recipe"]

_FINETUNE = FinetuneOptions(epochs=4, batch_size=64, learning_rate=0.02, schedule="cosine", flip=True)


def matched_recipe() -> Recipe:
    """One channel in five pruned, the map held by SWA."""
    return Recipe(compress=CompressOptions(PruneOptions(rate=0.2), _FINETUNE, MatchingOptions(loss="swa", beta=100.0)))


def unmatched_recipe() -> Recipe:
    """Half of the channels pruned and the matching term off: compression as it is usually done."""
    return Recipe(compress=CompressOptions(PruneOptions(rate=0.5), _FINETUNE, MatchingOptions(loss="none")))


@dataclass(frozen=True)
class DemoResult:
    """Both builds.

    Attributes:
        matched: With the map held.
        unmatched: Without.
    """

    matched: BuildResult
    unmatched: BuildResult


def run_demo(output: Path, target: str = "cpu", observer: Observer = NULL_OBSERVER) -> DemoResult:
    """Draw the images and run both builds below `output`; what is unchanged is not done again."""
    # The demo is two verdicts side by side: an engine that a device has yet to build has none.
    check_target_runs_here(resolve_target(target))
    images = output / "images"
    write_demo_dataset(images, observer=observer)

    def run(name: str, recipe: Recipe) -> BuildResult:
        request = BuildRequest(model=teacher_path(), data=images, output=output / name, recipe=recipe, target=target)
        result = build(request, observer)
        if not isinstance(result, BuildResult):
            raise DefectError("A target that runs here was left to a device.", found=target)
        return result

    matched = run("matched", matched_recipe())
    _share_golden(output)
    return DemoResult(matched, unmatched=run("unmatched", unmatched_recipe()))


def _share_golden(output: Path) -> None:
    """Hand the second build the first one's golden set, which depends on neither recipe; its stage checks it."""
    first, second = (BuildFolders(output / name).golden for name in ("matched", "unmatched"))
    if not second.exists():
        with foreign_os_errors(second, "copy the golden set"), atomic_directory(second) as staging:
            shutil.copytree(first, staging, dirs_exist_ok=True)
