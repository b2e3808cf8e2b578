"""Numbers as people write them lie where they must, and have few digits wherever there is room."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekit.policy.written import written_gap, written_share, written_value


@pytest.mark.parametrize(
    ("exact", "floor", "ceiling", "written"),
    [
        (0.059, 0.0, 0.59, 0.06),
        (0.0317, 0.0, 0.3, 0.04),
        (0.0121, 0.0, 0.1, 0.015),
        (0.95, 0.9, 1.2, 1.0),
        (0.02, 0.0, 0.2, 0.02),
        (3.2e-7, 1e-8, 1e-5, 4e-7),
        # No room above: less is written, never beyond what controls reach.
        (0.059, 0.0, 0.0595, 0.05),
        # Room for neither: more digits.
        (0.0592, 0.0591, 0.0595, 0.0592),
        (0.05, 0.05, 0.05, None),
        (0.05, 0.05, 0.05 + 1e-13, None),
    ],
)
def test_gaps(exact: float, floor: float, ceiling: float, written: float | None) -> None:
    assert written_gap(exact, floor, ceiling) == written


@given(
    floor=st.floats(0, 1),
    width=st.floats(1e-9, 2),
    margin=st.floats(0.001, 0.999),
)
def test_a_gap_lies_beyond_noise_and_before_controls(floor: float, width: float, margin: float) -> None:
    ceiling = floor + width
    exact = floor + margin * (ceiling - floor)
    written = written_gap(exact, floor, ceiling)
    if written is None:
        # Only where the two part in the last digits.
        assert min(exact - floor, ceiling - exact) < 1e-5 * exact
    else:
        assert floor < written < ceiling
        assert len(f"{written:.12g}".replace(".", "").replace("-", "").partition("e")[0].strip("0")) <= 7


@pytest.mark.parametrize(
    ("exact", "floor", "written"),
    [
        (0.951, 0.2, 0.95),
        (0.949, 0.2, 0.9),
        (0.883, 0.267, 0.85),
        (0.995, 0.2, 0.99),
        (0.883, 0.86, 0.88),
        (0.883, 0.881, None),
        (0.04, 0.0, 0.04),
        (0.004, 0.0, None),
    ],
)
def test_shares(exact: float, floor: float, written: float | None) -> None:
    assert written_share(exact, floor) == written


@given(exact=st.floats(0.001, 0.999), floor=st.floats(0, 0.998))
def test_a_share_asks_for_no_more_and_lies_above_what_is_nothing(exact: float, floor: float) -> None:
    written = written_share(exact, floor)
    if written is not None:
        assert floor < written <= exact
        assert math.isclose(written * 100, round(written * 100))


@pytest.mark.parametrize(
    ("metric", "gap", "words"),
    [
        ("cosine", 0.0, "1"),
        ("cosine", 1.2e-7, "1 - 1.2e-07"),
        ("cosine", 0.0409, "0.9591"),
        ("argmax-distance", 0.0, "0"),
        ("argmax-distance", 0.3194, "0.32"),
        ("js-divergence", 1.6e-13, "1.6e-13"),
    ],
)
def test_values(metric: str, gap: float, words: str) -> None:
    assert written_value(metric, gap) == words
