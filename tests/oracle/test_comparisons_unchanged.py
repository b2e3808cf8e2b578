"""Scores of stored bundles must come out again bit for bit: the comparisons of maps against the plain ones."""

from __future__ import annotations

import numpy as np
import plain_comparisons as plain
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from edgekit.interface.card import InputSpec
from edgekit.interface.preprocess import preprocess
from edgekit.metrics.agreement import METRICS, score_agreement
from edgekit.metrics.comparisons import MapStack

SHAPES = ((8, 8), (7, 7), (1, 1), (2, 3), (1, 9), (16, 16))


def usable(*stacks: np.ndarray) -> list[np.ndarray]:
    kept = np.logical_and.reduce([(maps != 0).any(axis=(1, 2)) for maps in stacks])
    return [maps[kept] for maps in stacks]


def pairs(shape: tuple[int, int], kind: str) -> list[np.ndarray]:
    rng = np.random.default_rng(len(kind))
    teacher, engine = (rng.normal(size=(120, *shape)).astype(np.float32) for _ in range(2))
    if kind == "after a ReLU":
        teacher, engine = np.maximum(teacher, 0), np.maximum(engine, 0)
    elif kind == "with ties":
        teacher, engine = np.round(2 * teacher), np.round(2 * engine)
    elif kind == "far apart in size":
        teacher, engine = teacher * np.float32(1e-30), engine * np.float32(1e30)
    elif kind == "flat":
        teacher = np.ones_like(teacher) * rng.integers(1, 3, size=(120, 1, 1)).astype(np.float32)
    elif kind == "float64":
        teacher, engine = teacher.astype(np.float64), engine.astype(np.float64) / 3
    return usable(teacher, engine)


@pytest.mark.parametrize("kind", ["signed", "after a ReLU", "with ties", "far apart in size", "flat", "float64"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("metric", METRICS)
def test_a_metric_gives_what_it_gave(metric: str, shape: tuple[int, int], kind: str) -> None:
    teacher, engine = pairs(shape, kind)
    old = getattr(plain, METRICS[metric].function.__name__)(teacher, engine)
    new = METRICS[metric].function
    np.testing.assert_array_equal(new(teacher, engine), old)  # type: ignore[arg-type]
    shared = MapStack(teacher)
    for _ in range(2):
        np.testing.assert_array_equal(new(shared, MapStack(engine)), old)
    # A row's value does not depend on the rows beside it, nor on how many there are.
    for rows in (slice(0, 1), slice(5, 12), slice(None, None, 3)):
        np.testing.assert_array_equal(new(teacher[rows], engine[rows]), old[rows])  # type: ignore[arg-type]


@settings(max_examples=60, deadline=None)
@given(
    arrays(np.float32, (2, 3, 3, 4), elements=st.floats(-1e6, 1e6, width=32, allow_subnormal=True)),
)
def test_any_maps_at_all(stacks: np.ndarray) -> None:
    teacher, engine = usable(stacks[0], stacks[1])
    assume(len(teacher) > 0)
    for metric in METRICS.values():
        np.testing.assert_array_equal(
            metric.function(teacher, engine),  # type: ignore[arg-type]
            getattr(plain, metric.function.__name__)(teacher, engine),
        )


def test_stacks_and_arrays_are_scored_alike_where_maps_are_degenerate() -> None:
    rng = np.random.default_rng(0)
    teacher, engine = np.maximum(rng.normal(size=(2, 50, 5, 5)), 0).astype(np.float32)
    teacher[3] = engine[3] = 0
    engine[4] = 0
    engine[7, 1, 1] = np.nan
    whole, shared = score_agreement(teacher, engine), score_agreement(MapStack(teacher), MapStack(engine))
    assert whole.states == shared.states
    for name, values in whole.metrics.items():
        np.testing.assert_array_equal(values, shared.metrics[name])


@pytest.mark.parametrize("order", ["RGB", "BGR"])
def test_pixels_are_prepared_to_the_bit_as_they_were(order: str) -> None:
    spec = InputSpec(9, 7, channel_order=order, divisor=255.0, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    pixels = np.random.default_rng(0).integers(0, 256, size=(5, 9, 7, 3), dtype=np.uint8)
    ordered = pixels if order == "RGB" else pixels[..., ::-1]
    mean, std = np.asarray(spec.mean, dtype=np.float32), np.asarray(spec.std, dtype=np.float32)
    plainly = ((ordered.astype(np.float32) / np.float32(255) - mean) / std).transpose(0, 3, 1, 2)
    found = preprocess(pixels, spec)
    assert found.flags.c_contiguous
    np.testing.assert_array_equal(found, plainly)
