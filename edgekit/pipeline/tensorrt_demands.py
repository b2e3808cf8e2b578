"""What a recipe asks of TensorRT, held against the target before any work."""

from __future__ import annotations

from edgekit.config.recipe import Recipe
from edgekit.errors import BadInputError, UnavailableError
from edgekit.targets.dla import require_dla
from edgekit.targets.target import Target

__all__ = ["check_tensorrt"]


def check_tensorrt(recipe: Recipe, target: Target) -> None:
    """Refuse what cannot work on the target, whatever it brings.

    Raises:
        BadInputError: The DLA takes INT8 by a calibration cache there, and the recipe lets calibration adjust the
            graph, which a cache cannot say.
        UnavailableError: The target has no such DLA core, or takes no plans for other GPUs.
    """
    asked = recipe.tensorrt
    if asked.hardware_compatible and target.modules:
        raise UnavailableError(
            "Plans for other GPUs are for discrete ones.",
            where=target.title,
            expected="tensorrt.hardware_compatible '' for a Jetson",
            found=repr(asked.hardware_compatible),
            hint="leave it away: the device builds its own plan",
        )
    if asked.dla_core is None:
        return
    support = require_dla(target, asked.dla_core)
    if support.by_cache and recipe.calibrate.adjusts_graph:
        raise BadInputError(
            "The DLA takes INT8 by a calibration cache, which cannot say how calibration adjusted the graph.",
            where=target.title,
            expected="calibrate.adjust false",
            found=f"calibrate.method {recipe.calibrate.method}, and TensorRT {', '.join(support.by_cache)}",
            hint="set calibrate.adjust to false, or leave tensorrt.dla_core (--dla) away",
        )
