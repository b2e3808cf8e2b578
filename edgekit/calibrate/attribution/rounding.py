"""Rounding weights so that a layer's result stays, not the weights themselves.

With D = w^ - w a row's error and H the covariance of what the row is multiplied with, the layer's squared error is
D H D' and not D D': errors of weights that meet correlated inputs can cancel (Nagel et al. 2020, "Up or Down? Adaptive
Rounding for Post-Training Quantization"; Frantar et al. 2023, "GPTQ"). Means count nowhere: the bias takes them up.

Weights are not asked to make up for errors of their inputs too (a target w C H^-1 with C the covariance of exact and
rounded inputs, as in Li et al. 2025, "GPTAQ"). That was tried: on the few images there are, it fits their noise, and
maps of held-out images moved more than with rounding to nearest.

The integers are found by a sequence of Gauss eliminations (each weight's error is passed on to those not yet rounded)
and then by coordinate descent until nothing changes; both are exact minimisations of one coordinate, for all rows at
once, and the best of what was seen is kept, rounding to nearest included.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgekit.calibrate.attribution.second_moments import LayerMoments

__all__ = ["RoundedRows", "damped", "quadratic_error", "round_rows"]

_BLOCK = 64
_SWEEPS = 8


@dataclass(frozen=True)
class RoundedRows:
    """Integers of one layer's weight.

    Attributes:
        offsets: int8 [groups, rows, K] from the nearest integers.
        before: float64 [groups, rows], the error with the nearest integers.
        after: float64 [groups, rows], the error with these.
    """

    offsets: npt.NDArray[np.int8]
    before: npt.NDArray[np.float64]
    after: npt.NDArray[np.float64]


def damped(moments: LayerMoments, damping: float) -> npt.NDArray[np.float64]:
    """The covariance with `damping` times its mean diagonal added to the diagonal, float64 [groups, K, K].

    Few images leave directions in which nothing was seen: there, weights shall stay near where they were. Channels
    that were constant get what keeps the matrix regular.
    """
    matrix = moments.rounded.astype(np.float64)
    matrix = (matrix + matrix.transpose(0, 2, 1)) / 2
    diagonal = np.einsum("gkk->gk", matrix)
    extra = damping * diagonal.mean(axis=1, keepdims=True)
    diagonal += np.where(extra > 0, extra, 1.0)
    return matrix


def quadratic_error(errors: npt.NDArray[np.float64], matrix: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """D H D' of each row, [..., rows], of errors [..., rows, K] and a matrix [..., K, K]."""
    result: npt.NDArray[np.float64] = ((errors @ matrix) * errors).sum(axis=-1)
    return result


def round_rows(
    rows: npt.NDArray[np.float64],
    scales: npt.NDArray[np.float64],
    matrix: npt.NDArray[np.float64],
    limit: int,
) -> RoundedRows:
    """Integers that minimise each row's error.

    Args:
        rows: [groups, rows, K], the weights; offsets count from their nearest integers.
        scales: [groups, rows], width of a step, positive.
        matrix: [groups, K, K], positive definite.
        limit: Integers are within -limit..limit.
    """
    steps = scales[..., None]
    nearest = np.clip(np.rint(rows / steps), -limit, limit)
    lowest, highest = np.maximum(nearest - 1, -limit), np.minimum(nearest + 1, limit)
    before = quadratic_error(nearest * steps - rows, matrix)
    best, after = nearest, before
    for start in (nearest, _passed_on(rows / steps, matrix, lowest, highest)):
        found = _descended(start, rows / steps, matrix, lowest, highest)
        error = quadratic_error(found * steps - rows, matrix)
        better = error < after
        best = np.where(better[..., None], found, best)
        after = np.where(better, error, after)
    return RoundedRows((best - nearest).astype(np.int8), before, after)


def _passed_on(
    wanted: npt.NDArray[np.float64],
    matrix: npt.NDArray[np.float64],
    lowest: npt.NDArray[np.float64],
    highest: npt.NDArray[np.float64],
) -> npt.NDArray[np.float64]:
    """GPTQ: round the columns one after the other and move those that follow so that they make up for it."""
    size = wanted.shape[-1]
    order = np.argsort(-np.einsum("gkk->gk", matrix).mean(axis=0), kind="stable")
    turned = matrix[:, order][:, :, order]
    # The upper factor of the inverse: row k holds how what is left after k reacts to an error at k.
    factor = np.linalg.cholesky(np.linalg.inv(turned)).transpose(0, 2, 1)
    left = wanted[..., order].copy()
    low, high = lowest[..., order], highest[..., order]
    found = np.empty_like(left)
    for start in range(0, size, _BLOCK):
        end = min(start + _BLOCK, size)
        errors = np.empty((*left.shape[:2], end - start))
        for column in range(start, end):
            value = np.clip(np.rint(left[..., column]), low[..., column], high[..., column])
            found[..., column] = value
            error = (left[..., column] - value) / factor[:, column, column, None]
            errors[..., column - start] = error
            left[..., column:end] -= error[..., None] * factor[:, None, column, column:end]
        left[..., end:] -= errors @ factor[:, start:end, end:]
    result = np.empty_like(found)
    result[..., order] = found
    return result


def _descended(
    start: npt.NDArray[np.float64],
    wanted: npt.NDArray[np.float64],
    matrix: npt.NDArray[np.float64],
    lowest: npt.NDArray[np.float64],
    highest: npt.NDArray[np.float64],
) -> npt.NDArray[np.float64]:
    """Coordinate descent: each weight takes the integer that is best with the others as they are."""
    found = start.copy()
    size = found.shape[-1]
    diagonal = np.einsum("gkk->gk", matrix)
    for _ in range(_SWEEPS):
        slope = (found - wanted) @ matrix
        moved = False
        for begin in range(0, size, _BLOCK):
            end = min(begin + _BLOCK, size)
            origin = found[..., begin:end].copy()
            for column in range(begin, end):
                ideal = found[..., column] - slope[..., column] / diagonal[:, column, None]
                value = np.clip(np.rint(ideal), lowest[..., column], highest[..., column])
                step = value - found[..., column]
                if step.any():
                    moved = True
                    found[..., column] = value
                    slope[..., column:end] += step[..., None] * matrix[:, None, column, column:end]
            change = found[..., begin:end] - origin
            slope[..., end:] += change @ matrix[:, begin:end, end:]
        if not moved:
            break
    return found
