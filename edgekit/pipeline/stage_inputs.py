"""What the stages that read a model and images share: both loaded, and divided by what serves for what.

Everything heavy is imported when it is used, so that scripts and commands start at once.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edgekit.core.progress import NULL_OBSERVER, Observer

if TYPE_CHECKING:
    from edgekit.compress.options import CompressOptions
    from edgekit.config.recipe import Recipe
    from edgekit.pipeline.data import BuildData
    from edgekit.teacher.checkpoint import LoadedModel
    from edgekit.teacher.load_options import LoadOptions

__all__ = ["StageInputs", "stage_inputs"]


@dataclass(frozen=True)
class StageInputs:
    """What is handed to a stage.

    Attributes:
        model: The model's file.
        load: How it was loaded.
        recipe: The recipe.
        seed: The seed.
        observer: The observer.
        loaded: The model.
        images: What serves for what.
    """

    model: Path
    load: LoadOptions
    recipe: Recipe
    seed: int
    observer: Observer
    loaded: LoadedModel
    images: BuildData


@contextmanager
def stage_inputs(  # noqa: PLR0913 - all but two by keyword
    model: str | Path,
    data: str | Path,
    *,
    calib: str | Path | None = None,
    calib_root: str | Path | None = None,
    recipe: Recipe | None = None,
    load: LoadOptions | None = None,
    seed: int = 0,
    observer: Observer = NULL_OBSERVER,
    compressing: CompressOptions | None = None,
) -> Iterator[StageInputs]:
    """Load a model and look at its images; what a model's name stands for lies in a file until the block ends.

    Args:
        model: A model's file, or the name of one that a library knows.
        data: Labelled images.
        calib: Other images to find ranges on, or the file of a calibration set.
        calib_root: Folder with the images of that set; `data` unless said.
        recipe: How many images serve for what; the default recipe unless said.
        load: How to load the model.
        seed: Decides which images are drawn.
        observer: Told of the progress.
        compressing: Refuse a model of a format that this cannot be done with, before the images are read.

    Raises:
        BadInputError: Model or images cannot be used.
    """
    from edgekit.compress.outline import check_format
    from edgekit.config.recipe import Recipe
    from edgekit.pipeline.data import DataRequest, load_data
    from edgekit.teacher.load_options import LoadOptions
    from edgekit.teacher.loading import load_model
    from edgekit.teacher.pretrained import temporary_model_file

    load, recipe = load or LoadOptions(), recipe or Recipe()
    with temporary_model_file(Path(model), load) as path:
        loaded = load_model(path, load)
        for note in loaded.notes:
            observer.noted(note)
        if compressing is not None:
            # Before the images are read; the stage looks again.
            check_format(compressing, loaded.capabilities, format_name=loaded.format, where=str(model))
        wanted = DataRequest.from_recipe(recipe, Path(data), _path(calib), seed, calib_root=_path(calib_root))
        yield StageInputs(path, load, recipe, seed, observer, loaded, load_data(wanted, loaded.card, observer))


def _path(said: str | Path | None) -> Path | None:
    return None if said is None else Path(said)
