"""Golden sets that repeat images: told which, and refused when they are made and when they are read."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tiny_golden import tiny_golden

from edgekit.bundle.distinct import repeated_names
from edgekit.bundle.golden import read_golden, write_golden
from edgekit.errors import IntegrityError


def test_what_differs_is_not_told() -> None:
    assert repeated_names(("a", "b"), ("1", "2")) == ""
    assert repeated_names((), ()) == ""


def test_what_is_the_same_is_named() -> None:
    told = repeated_names(("a", "b", "c", "d"), ("1", "2", "1", "1"))
    assert told == "2 different images among 4: c is a; d is a"


def test_many_are_counted() -> None:
    told = repeated_names([str(number) for number in range(10)], ["1"] * 10)
    assert told.startswith("1 different images among 10: 1 is 0; 2 is 0; 3 is 0 and 6 more")


@pytest.mark.parametrize("places", [[0, 1, 2, 2], [3, 3, 3, 3], [0, 1, 0, 1]])
def test_a_set_that_repeats_is_refused(tmp_path: Path, places: list[int]) -> None:
    whole = tiny_golden(4)
    repeated = replace(
        whole,
        pixels=whole.pixels[places],
        labels=whole.labels[places],
        logits=whole.logits[places],
        maps=whole.maps[places],
    )
    write_golden(repeated, tmp_path)
    with pytest.raises(IntegrityError, match="repeats samples") as refused:
        read_golden(tmp_path)
    assert f"{len(set(places))} different images among 4" in (refused.value.found or "")
    assert "golden" in (refused.value.hint or "")


def test_equal_answers_to_different_images_are_fine(tmp_path: Path) -> None:
    whole = tiny_golden(4)
    write_golden(replace(whole, logits=np.tile(whole.logits[:1], (4, 1))), tmp_path)
    assert len(read_golden(tmp_path)) == 4
