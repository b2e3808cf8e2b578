"""Whether two maps can be compared at all, decided before any metric looks at them."""

from __future__ import annotations

import numpy as np

from edgekit.attribution.normalise import FloatMaps
from edgekit.errors import DefectError, IntegrityError

__all__ = ["check_pair", "map_states"]


def check_pair(teacher: FloatMaps, engine: FloatMaps) -> None:
    """Check that two stacks of maps belong together.

    Raises:
        DefectError: Not two floating stacks [N, h, w] of one shape with at least one cell a map.
    """
    fits = teacher.shape == engine.shape and teacher.ndim == 3 and 0 not in teacher.shape[1:]
    if not (fits and all(np.issubdtype(maps.dtype, np.floating) for maps in (teacher, engine))):
        raise DefectError(
            "Two stacks of maps cannot be compared.",
            expected="two floating arrays of one shape [N, h, w]",
            found=f"{teacher.dtype} {list(teacher.shape)} and {engine.dtype} {list(engine.shape)}",
        )


def map_states(teacher: FloatMaps, engine: FloatMaps) -> tuple[str, ...]:
    """The state of every pair of maps, one of `edgekit.metrics.scores.STATES`.

    A map is zero when every cell is exactly 0: what a ReLU leaves where it found no evidence. There is no tolerance,
    since a raw map has no scale of its own against which one could be set. A value that is not finite outweighs a
    zero on the other side: such an engine is broken, whatever the teacher said.

    Args:
        teacher: Floating [N, h, w].
        engine: Floating [N, h, w].

    Returns:
        N states.

    Raises:
        DefectError: The shapes or dtypes do not fit.
        IntegrityError: A map of the teacher is not finite: the yardstick itself is broken.
    """
    check_pair(teacher, engine)
    if not np.isfinite(teacher).all():
        raise IntegrityError(
            "The teacher's maps hold values that are not finite.",
            expected="a yardstick of finite maps",
            found=f"{int((~np.isfinite(teacher)).any(axis=(1, 2)).sum())} of {len(teacher)} maps",
            hint="make the golden set again and look at the teacher's weights",
        )
    broken = ~np.isfinite(engine).all(axis=(1, 2))
    zeros = (teacher == 0).all(axis=(1, 2)).astype(int) + (engine == 0).all(axis=(1, 2)).astype(int)
    names = np.array(["scored", "one_zero", "both_zero"])[zeros]
    states: list[str] = np.where(broken, "non_finite", names).tolist()
    return tuple(states)
