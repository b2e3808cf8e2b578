"""Faults of a scale: values above some limit are cut, in the map or in the activation that it weighs."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from edgekit.verify.diagnosis.finding import Finding, Maps, best_of_each, closes, mean_cosine

__all__ = ["find_scale_faults"]

# Share of the cells at the very largest value of all maps, and of the maps that hold such a cell, from which on that
# value is a limit. Without one only the strongest cell of one map is there.
_CELLS_AT_LIMIT = 0.01
_MAPS_AT_LIMIT = 0.5
# How much an exponent flattens a map whose strong activations are cut, channel by channel.
_EXPONENTS = (0.7, 0.5, 0.3)
# Flattening every map alike is no exact inverse, but it has to come near.
_NEAR = 0.9


def find_scale_faults(teacher: Maps, engine: Maps) -> list[Finding]:
    """Cut or flatten the teacher's maps; what then matches the engine's shows where the engine cuts.

    Args:
        teacher: float32 [N, h, w].
        engine: float32 [N, h, w]; may hold values that are not finite.
    """
    if not np.isfinite(engine).all():
        return []
    before = mean_cosine(teacher, engine)
    return best_of_each([*_cut_maps(teacher, engine, before), *_flattened(teacher, engine, before)])


def _cut_maps(teacher: Maps, engine: Maps, before: float) -> Iterator[Finding]:
    limit = float(engine.max())
    at_limit = engine >= limit * (1 - 1e-5)
    enough = np.mean(at_limit) > _CELLS_AT_LIMIT and np.mean(at_limit.any(axis=(1, 2))) > _MAPS_AT_LIMIT
    if limit <= 0 or not enough or (engine[~at_limit] <= 0).all():
        return
    after = mean_cosine(np.minimum(teacher, np.float32(limit)), engine)
    if closes(before, after):
        text = (
            f"The maps match where the teacher's are cut at {limit:.3g}, and {np.mean(at_limit):.1%} of the engine's "
            "cells have exactly that value: the scale of the map is too small for its range, so that it saturates."
        )
        yield Finding("scale-saturated", text, before, after)


def _flattened(teacher: Maps, engine: Maps, before: float) -> Iterator[Finding]:
    if not (teacher >= 0).all():
        return
    for exponent in _EXPONENTS:
        after = mean_cosine(np.power(teacher, np.float32(exponent)), engine)
        if closes(before, after) and after >= _NEAR:
            text = (
                f"The maps match the teacher's once those are flattened (to the power {exponent}): the engine cuts "
                "strong activations, as with a scale or threshold that is far too small. Look at the scales before "
                "the tap, and calibrate again."
            )
            yield Finding("scale-saturated", text, before, after)
