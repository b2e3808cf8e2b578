"""Images that are given twice: the first stays, copies lend what they know, and contradictions are named."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_teacher_golden import Images, images, request_  # noqa: F401 - fixtures

from edgekit.bundle.golden import read_golden
from edgekit.core.progress import NullObserver
from edgekit.errors import BadInputError
from edgekit.teacher.copies import distinct_images
from edgekit.teacher.golden import GoldenRequest, golden

NAMES = ("a", "b", "c", "d")


class Told(NullObserver):
    """Keeps the notes."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def noted(self, message: str) -> None:
        self.notes.append(message)


def pixels_of(kinds: list[int]) -> np.ndarray:
    return np.array(kinds, dtype=np.uint8)[:, None, None, None] * np.ones((1, 2, 2, 3), dtype=np.uint8)


def masks_of(kinds: list[int]) -> np.ndarray:
    """0 is no mask."""
    return np.array(kinds)[:, None, None] > np.arange(4).reshape(1, 2, 2)


def test_images_that_differ_stay_as_they_are() -> None:
    pixels, labels = pixels_of([1, 2, 3, 4]), np.array([0, 0, 1, -1])
    found = distinct_images(NAMES, pixels, labels, None)
    assert (found.names, found.left_out, found.copies, found.masks) == (NAMES, 0, "", None)
    assert found.pixels is pixels
    assert found.labels is labels


@given(st.lists(st.integers(0, 5), min_size=1, max_size=12))
def test_the_first_of_each_stays_in_order(kinds: list[int]) -> None:
    names = [str(place) for place in range(len(kinds))]
    found = distinct_images(names, pixels_of(kinds), np.array(kinds), masks_of(kinds))
    expected = list(dict.fromkeys(kinds))
    assert found.labels.tolist() == expected
    assert found.names == tuple(str(kinds.index(kind)) for kind in expected)
    assert found.left_out == len(kinds) - len(expected)
    assert np.array_equal(found.pixels, pixels_of(expected))
    assert np.array_equal(found.masks, masks_of(expected))
    assert bool(found.copies) == bool(found.left_out)


def test_a_copy_lends_what_the_first_does_not_know() -> None:
    labels, masks = np.array([-1, 4, 2, -1]), masks_of([0, 0, 3, 0])
    found = distinct_images(NAMES, pixels_of([1, 2, 1, 3]), labels, masks)
    assert found.labels.tolist() == [2, 4, -1]
    assert found.masks is not None
    assert np.array_equal(found.masks, masks_of([3, 0, 0]))
    assert labels[0] == -1, "what was given stays as it was"
    assert not masks[0].any()


@pytest.mark.parametrize(
    ("what", "labels", "masks"),
    [("labels", [0, 1, 1, 2], [1, 1, 1, 1]), ("masks", [0, 1, 0, 1], [2, 1, 3, 1]), ("labels", [-1, 1, 0, 2], [0] * 4)],
)
def test_copies_that_contradict_each_other_are_named(what: str, labels: list[int], masks: list[int]) -> None:
    kinds = [7, 8, 7, 8] if -1 not in labels else [7, 8, 9, 8]
    with pytest.raises(BadInputError, match=f"their {what} are not") as refused:
        distinct_images(NAMES, pixels_of(kinds), np.array(labels), masks_of(masks))
    assert ("c is a" if kinds[2] == 7 else "d is b") in str(refused.value.found)


def test_of_many_contradictions_a_few_are_shown() -> None:
    names = [str(place) for place in range(10)]
    with pytest.raises(BadInputError) as refused:
        distinct_images(names, pixels_of([1] * 10), np.arange(10), None)
    assert refused.value.found == "1 is 0; 2 is 0; 3 is 0; and 6 more"


def test_the_stage_leaves_copies_out_and_says_so(request_: GoldenRequest, images: Images, tmp_path: Path) -> None:  # noqa: F811
    places = [0, 1, 2, 1, 3, 0]
    some = Images(images.array[places], images.labels[places], images.object_masks[places])
    told, again = Told(), Told()
    record = golden(replace(request_, images=some), tmp_path / "golden", told)
    found = read_golden(tmp_path / "golden")
    assert found.names == ("image-0.png", "image-1.png", "image-2.png", "image-4.png")
    assert np.array_equal(found.pixels, images.array[:4])
    assert np.array_equal(found.labels, images.labels[:4])
    assert np.array_equal(found.masks, images.object_masks[:4])
    assert (record.facts["samples"], record.facts["copies_left_out"]) == (4, 2)
    assert "image-3.png is image-1.png; image-5.png is image-0.png" in record.facts["copies"]
    assert "2 copies left out" in record.facts["summary"]
    assert told.notes == [f"golden: copies of images are left out, {record.facts['copies']}"]
    assert golden(replace(request_, images=some), tmp_path / "golden", again) == record
    assert again.notes == told.notes, "nothing was done again, and the copies are told of all the same"


def test_the_stage_refuses_contradictions(request_: GoldenRequest, images: Images, tmp_path: Path) -> None:  # noqa: F811
    some = Images(images.array[[0, 0]], np.array([0, 1]))
    with pytest.raises(BadInputError, match=r"contradict") as refused:
        golden(replace(request_, images=some), tmp_path / "golden")
    assert refused.value.found == "image-1.png is image-0.png"
    assert not (tmp_path / "golden").exists()


def test_a_set_without_copies_says_nothing(request_: GoldenRequest, tmp_path: Path) -> None:  # noqa: F811
    told = Told()
    record = golden(request_, tmp_path / "golden", told)
    assert (told.notes, record.facts["copies_left_out"], record.facts["copies"]) == ([], 0, "")
