"""Which images are trained on, in which order, and how they are varied."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from labelled_images import Images

from edgekit.compress.options import FinetuneOptions
from edgekit.compress.training.batches import digest_images, held_back, training_indices, varied, visiting_order
from edgekit.errors import BadInputError

CLASSES = ("a", "b", "c")


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def numbered(count: int, height: int = 5, width: int = 6) -> npt.NDArray[np.uint8]:
    """Images in which every pixel of one image is different."""
    cells = np.arange(height * width, dtype=np.uint8).reshape(1, height, width, 1)
    return np.broadcast_to(cells, (count, height, width, 3)).copy()


@settings(max_examples=100, deadline=None)
@given(
    labels=st.lists(st.integers(-1, 2), min_size=1, max_size=60).filter(lambda found: len(set(found) - {-1}) > 1),
    limit=st.integers(0, 40),
    seed=st.integers(0, 9),
)
def test_chosen_images_are_labelled_distinct_and_as_balanced_as_they_can_be(
    labels: list[int], limit: int, seed: int
) -> None:
    array = np.array(labels)
    found = training_indices(array, CLASSES, limit, generator(seed))
    known = int((array >= 0).sum())
    assert len(found) == (min(limit, known) if limit else known)
    assert (np.diff(found) > 0).all()
    assert (array[found] >= 0).all()
    taken = [int((array[found] == index).sum()) for index in range(3)]
    there = [int((array == index).sum()) for index in range(3)]
    # A class is behind another by more than one image only where it has no more to give.
    assert all(taken[i] >= taken[j] - 1 or taken[i] == there[i] for i in range(3) for j in range(3))


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([], "cannot teach"),
        ([-1, -1], "cannot teach"),
        ([1, 1, -1], "cannot teach"),
        ([0, 3], "no class"),
        ([0, -2], "no class"),
    ],
)
def test_images_that_cannot_be_trained_on_are_an_error(labels: list[int], message: str) -> None:
    with pytest.raises(BadInputError, match=message):
        training_indices(np.array(labels, dtype=np.int64), CLASSES, 0, generator())


@settings(max_examples=50, deadline=None)
@given(count=st.integers(2, 40), batch_size=st.integers(2, 12), seed=st.integers(0, 5))
def test_an_epoch_visits_every_image_once_and_drops_only_a_batch_of_one(count: int, batch_size: int, seed: int) -> None:
    indices = np.arange(count) * 3
    batches = list(visiting_order(indices, batch_size, generator(seed)))
    seen = np.concatenate(batches)
    assert all(2 <= len(batch) <= batch_size for batch in batches)
    assert len(set(seen)) == len(seen) == count - (1 if count % batch_size == 1 else 0)
    assert set(seen) <= set(indices)


@settings(max_examples=60, deadline=None)
@given(shift=st.integers(0, 8), flip=st.booleans(), seed=st.integers(0, 100))
def test_every_varied_image_is_one_shift_and_flip_of_the_original(shift: int, flip: bool, seed: int) -> None:
    pixels = numbered(4)
    found = varied(pixels, FinetuneOptions(flip=flip, shift=shift), generator(seed))
    padded = np.pad(pixels, ((0, 0), (shift, shift), (shift, shift), (0, 0)), mode="edge")
    for before, after in zip(padded, found, strict=True):
        possible = [
            before[top : top + 5, left : left + 6][:, ::step]
            for top in range(2 * shift + 1)
            for left in range(2 * shift + 1)
            for step in ((1, -1) if flip else (1,))
        ]
        assert any(np.array_equal(after, candidate) for candidate in possible)
    assert np.array_equal(pixels, numbered(4))


def test_variation_reaches_every_flip_and_shift_and_differs_between_images() -> None:
    found = varied(numbered(400), FinetuneOptions(flip=True, shift=1), generator())
    assert len({image.tobytes() for image in found}) == 2 * 3 * 3


def test_no_variation_leaves_the_images() -> None:
    assert np.array_equal(varied(numbered(3), FinetuneOptions(flip=False), generator()), numbered(3))


def test_digest_covers_images_labels_and_order() -> None:
    pixels = np.arange(3 * 4 * 4 * 3, dtype=np.uint8).reshape(3, 4, 4, 3)
    labels = np.array([0, 1, 2])
    base = Images(pixels, labels)
    others = [
        Images(pixels, np.array([0, 2, 2])),
        Images(pixels[::-1], labels[::-1]),
        Images(pixels[:2], labels[:2]),
        Images(pixels + 1, labels),
    ]
    assert digest_images(base) == digest_images(Images(pixels.copy(), labels.copy()))
    assert len({digest_images(images) for images in (base, *others)}) == 5


def shown(rows: list[list[int]]) -> npt.NDArray[np.int64]:
    return np.array(rows, dtype=np.int64)


def test_an_image_may_show_several_classes_or_none() -> None:
    labels = shown([[1, 1, 0], [0, 0, 0], [-1, -1, -1], [0, 0, 1]])
    assert training_indices(labels, CLASSES, 0, generator(), task="multi-label").tolist() == [0, 1, 3]


@settings(max_examples=60, deadline=None)
@given(
    rows=st.lists(st.lists(st.integers(0, 1), min_size=3, max_size=3), min_size=2, max_size=40).filter(
        lambda found: len({tuple(row) for row in found}) > 1
    ),
    limit=st.integers(1, 20),
    seed=st.integers(0, 5),
)
def test_of_several_classes_the_rarest_counts_when_images_are_chosen(
    rows: list[list[int]], limit: int, seed: int
) -> None:
    labels = shown(rows)
    counts = labels.sum(axis=0)
    group = np.array(
        [min((counts[k], k) for k in range(3) if row[k])[1] if row.any() else 3 for row in labels]
    )  # 3: shows none
    found = training_indices(labels, CLASSES, limit, generator(seed), task="multi-label")
    assert len(set(found)) == len(found) == min(limit, len(labels))
    taken = [int((group[found] == index).sum()) for index in range(4)]
    there = [int((group == index).sum()) for index in range(4)]
    assert all(taken[i] >= taken[j] - 1 or taken[i] == there[i] for i in range(4) for j in range(4))
    trained, judged = held_back(labels, np.arange(len(labels)), 0.25, generator(seed))
    assert sorted([*trained, *judged]) == list(range(len(labels)))
    held = [int((group[judged] == index).sum()) for index in range(4)]
    assert held == [min(max(1, round(0.25 * count)), count - 1) if count else 0 for count in there]


@pytest.mark.parametrize(
    ("rows", "task", "message"),
    [
        ([[1, 0, 0], [0, 1, 0]], "softmax", "do not fit the card"),
        ([[1, 0], [0, 1]], "multi-label", "do not fit the card"),
        ([[1, 0, 2], [0, 1, 0]], "multi-label", "neither shown nor not shown"),
        ([[1, 0, -1], [0, 1, 0]], "multi-label", "neither shown nor not shown"),
        ([[1, 0, 1], [1, 0, 1]], "multi-label", "cannot teach"),
        ([[0, 0, 0], [0, 0, 0]], "multi-label", "cannot teach"),
        ([[1, 0, 0], [-1, -1, -1]], "multi-label", "cannot teach"),
    ],
)
def test_several_classes_that_cannot_be_trained_on_are_an_error(rows: list[list[int]], task: str, message: str) -> None:
    with pytest.raises(BadInputError, match=message):
        training_indices(shown(rows), CLASSES, 0, generator(), task=task)
