"""Random weights of the outputs, chosen so that squared gradients are the second-order drift of map and logits.

A small change moves a map M by dM and logits by dz. To second order, 1 - cos(M + dM, M) is |P dM|^2 / (2 |M|^2) with P
the projection orthogonal to M, and the divergence KL(p || softmax(z + dz)) is dz' (diag p - p p') dz / 2 with
p = softmax z. Both are means of `<r, .>^2` over the weights drawn here; so the mean square of a gradient, cell by cell,
is the diagonal of the drift's curvature (Hutchinson's estimate; the logits' part is the Fisher information, with labels
drawn from the network's own answer).
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from edgekit.calibrate.graph import LOGITS
from edgekit.errors import BadInputError

__all__ = ["sample_cotangents"]

# A map shorter than this is as good as empty: dividing by its length leaves float32.
_SHORTEST = 1e-20


def sample_cotangents(
    logits: npt.NDArray[np.float32],
    maps: Mapping[str, npt.NDArray[np.float32]],
    rng: np.random.Generator,
    logits_weight: float = 1.0,
) -> dict[str, npt.NDArray[np.float32]]:
    """Draw one weight of every output of every sample.

    Args:
        logits: float32 [n, K].
        maps: Output to maps, float32 [n, h, w], or [n, C, h, w] with one map for each of C classes. Each map is judged
            by itself and has the same share of the maps' weight, which is 1.
        rng: Draws the logits first, then the maps in their order.
        logits_weight: Weight of the divergence of the logits against the mean of the maps' 1 - cosine.

    Returns:
        Output to float32 in its shape. An empty map gets zeros: it has no direction that could move.

    Raises:
        BadInputError: An answer is not finite.
    """
    for name, values in {LOGITS: logits, **maps}.items():
        if not np.isfinite(values).all():
            raise BadInputError(
                "The graph's answers are not finite, so they have no drift.",
                where=f"output {name!r}",
                expected="finite values",
                found=f"values from {values.min()} to {values.max()}",
                hint="check the weights for NaN or overflow and the images' normalisation",
            )
    found = {LOGITS: _logits(logits, rng) * np.float32(math.sqrt(logits_weight))}
    views = sum(_views_of(values) for values in maps.values())
    for name, values in maps.items():
        found[name] = _maps(values, rng) * np.float32(1 / math.sqrt(max(views, 1)))
    return found


def _logits(logits: npt.NDArray[np.float32], rng: np.random.Generator) -> npt.NDArray[np.float32]:
    """`(onehot(y) - p) / sqrt 2` with y drawn from p, whose covariance is that of the divergence's second order."""
    shifted = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    p = shifted / shifted.sum(axis=1, keepdims=True)
    # The last class also catches what rounding leaves of the sum.
    drawn = (rng.random((len(p), 1)) >= np.cumsum(p, axis=1)[:, :-1]).sum(axis=1)
    chosen = np.zeros_like(p)
    chosen[np.arange(len(p)), drawn] = 1
    weights: npt.NDArray[np.float64] = (chosen - p) / math.sqrt(2)
    return weights.astype(np.float32)


def _views_of(maps: npt.NDArray[np.float32]) -> int:
    return maps.shape[1] if maps.ndim == 4 else 1


def _maps(maps: npt.NDArray[np.float32], rng: np.random.Generator) -> npt.NDArray[np.float32]:
    """`P n / (sqrt 2 |M|)` with n normal, for each map of each sample."""
    flat = maps.reshape(-1, maps.shape[-2] * maps.shape[-1]).astype(np.float64)
    length = np.linalg.norm(flat, axis=1, keepdims=True)
    empty = length < _SHORTEST
    unit = np.where(empty, 0.0, flat / np.where(empty, 1.0, length))
    noise = rng.standard_normal(flat.shape)
    across = noise - (noise * unit).sum(axis=1, keepdims=True) * unit
    scaled = np.where(empty, 0.0, across / (math.sqrt(2) * np.where(empty, 1.0, length)))
    return scaled.reshape(maps.shape).astype(np.float32)
