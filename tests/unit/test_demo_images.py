"""The demo's images: deterministic, with honest masks, and with a shortcut where it is said to be."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from scipy.ndimage import binary_dilation

from edgekit.core.digests import digest_path
from edgekit.demo.dataset import DemoSizes, write_demo_dataset
from edgekit.demo.images import CLASSES, SHORTCUT_SHARE, SIDE, SPLITS, draw_image
from edgekit.demo.shapes import SHAPES
from edgekit.demo.textures import TEXTURES
from edgekit.errors import BadInputError
from edgekit.images.imageset import load_masks, load_pixels, read_imageset, split_imageset

GRID = [axis.astype(np.float32) for axis in np.meshgrid(np.linspace(-1.5, 1.5, 301), np.linspace(-1.5, 1.5, 301))]
CELL = (3 / 300) ** 2
# Areas of the shapes by school geometry, in squared radii.
AREAS = {
    "disc": np.pi,
    "ring": np.pi * (1.0**2 - 0.52**2),
    "square": (2 * 0.84) ** 2,
    "triangle": 3 * np.sqrt(3) * (1.15 / 2) ** 2,
    "star": 5 * 1.2 * 0.52 * np.sin(np.pi / 5),
    "cross": 2 * (2 * 1.05 * 2 * 0.3) - (2 * 0.3) ** 2,
}


@pytest.mark.parametrize("name", SHAPES)
def test_shapes_have_the_area_and_reach_of_their_name(name: str) -> None:
    inside = SHAPES[name](*GRID) < 0
    assert inside.sum() * CELL == pytest.approx(AREAS[name], rel=0.02)
    assert np.hypot(*GRID)[inside].max() <= 1.2 + 0.01


@pytest.mark.parametrize("name", ["disc", "ring", "square", "triangle", "cross"])
def test_shapes_are_measured_in_true_distance_near_straight_edges(name: str) -> None:
    """A soft edge of one pixel needs a field that grows by one per unit: its gradient is one almost everywhere."""
    field = SHAPES[name](*GRID)
    slopes = np.hypot(*np.gradient(field, 3 / 300))
    near = np.abs(field) < 0.05
    assert np.median(slopes[near]) == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize("split", SPLITS)
def test_the_same_arguments_give_the_same_image_and_others_another(split: str) -> None:
    image = draw_image(3, split, 7)
    again = draw_image(3, split, 7)
    assert np.array_equal(image.pixels, again.pixels)
    assert np.array_equal(image.mask, again.mask)
    others = [draw_image(4, split, 7), draw_image(3, split, 8), draw_image(3, SPLITS[SPLITS.index(split) - 1], 7)]
    assert not any(np.array_equal(image.pixels, other.pixels) for other in others)


def test_classes_take_turns() -> None:
    assert [draw_image(0, "val", index).label for index in range(8)] == [0, 1, 2, 3, 4, 5, 0, 1]


def test_background_goes_with_class_in_train_and_nowhere_else() -> None:
    names = list(TEXTURES)
    agreeing = {}
    for split in SPLITS:
        images = [draw_image(1, split, index) for index in range(300)]
        agreeing[split] = np.mean([names[image.label] == image.texture for image in images])
        assert set(Counter(image.texture for image in images)) == set(names)
    # Four standard errors of a share of 300.
    assert agreeing["train"] == pytest.approx(SHORTCUT_SHARE, abs=0.106)
    assert agreeing["val"] == pytest.approx(1 / len(names), abs=0.086)
    assert agreeing["broad"] == pytest.approx(1 / len(names), abs=0.086)


@pytest.mark.parametrize("index", range(12))
def test_the_mask_is_where_the_object_was_painted(index: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same image drawn with its object left out differs inside the mask and, but for the soft edge, only there."""
    with_object = draw_image(5, "val", index)
    kind = CLASSES[with_object.label]
    original = SHAPES[kind]
    # Distractors are never of the image's own class, so this takes away the object and nothing else.
    monkeypatch.setitem(SHAPES, kind, lambda u, v: original(u, v) * 0 + 100)
    without = draw_image(5, "val", index)
    assert not without.mask.any()
    changed = np.abs(with_object.pixels.astype(int) - without.pixels.astype(int)).max(axis=2) > 2
    rows, columns = np.nonzero(with_object.mask)
    assert changed[rows, columns].mean() > 0.97
    # The soft edge reaches half a pixel out, and a pixel and a half beyond the tip of a star.
    reached = binary_dilation(with_object.mask, np.ones((5, 5)))
    assert not (changed & ~reached).any()


def test_objects_stay_inside_the_image_and_vary_in_size() -> None:
    masks = np.stack([draw_image(2, "val", index).mask for index in range(180)])
    on_the_border = masks[:, [0, -1]].sum(axis=(1, 2)) + masks[:, :, [0, -1]].sum(axis=(1, 2))
    assert on_the_border.max() <= 8
    assert np.mean(on_the_border > 0) < 0.1
    for label in range(len(CLASSES)):
        areas = masks[label :: len(CLASSES)].sum(axis=(1, 2))
        assert areas.max() > 2 * areas.min()


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demo") / "images"
    write_demo_dataset(folder, DemoSizes(24, 12), seed=9)
    return folder


def test_the_folder_reads_back_as_what_was_drawn(written: Path) -> None:
    split = split_imageset(read_imageset(written, CLASSES, max_corrupt_share=0))
    assert (len(split.train), len(split.held_out), split.duplicates) == (24, 12, 0)
    assert all(
        not np.array_equal(draw_image(9, "train", 0).pixels, draw_image(9, "val", index).pixels) for index in range(12)
    )
    for items, name in ((split.train, "train"), (split.held_out, "val")):
        drawn = [draw_image(9, name, index) for index in range(len(items))]
        assert [item.label for item in items] == [image.label for image in drawn]
        assert np.array_equal(load_pixels(items, SIDE, SIDE), np.stack([image.pixels for image in drawn]))
        assert np.array_equal(load_masks(items, SIDE, SIDE), np.stack([image.mask for image in drawn]))


def _times(folder: Path) -> dict[str, int]:
    return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in folder.rglob("*.png")}


def test_a_finished_folder_is_left_alone(written: Path) -> None:
    before = _times(written)
    write_demo_dataset(written, DemoSizes(24, 12), seed=9)
    assert _times(written) == before


def test_a_damaged_folder_is_drawn_again_and_ends_the_same(tmp_path: Path) -> None:
    folder = tmp_path / "images"
    write_demo_dataset(folder, DemoSizes(6, 6))
    digest = digest_path(folder)
    (folder / "images" / "val" / "00000-disc.png").write_bytes(b"damaged")
    (folder / "masks" / "val" / "00001-ring.png").unlink()
    write_demo_dataset(folder, DemoSizes(6, 6))
    assert digest_path(folder) == digest


def test_other_sizes_or_seeds_replace_the_folder(tmp_path: Path) -> None:
    folder = tmp_path / "images"
    write_demo_dataset(folder, DemoSizes(6, 6))
    first = digest_path(folder / "images")
    write_demo_dataset(folder, DemoSizes(6, 6), seed=1)
    assert digest_path(folder / "images") != first
    write_demo_dataset(folder, DemoSizes(7, 6), seed=1)
    assert len(list((folder / "images" / "train").iterdir())) == 7


def test_a_folder_of_somebody_elses_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("five years of work")
    with pytest.raises(BadInputError, match="something else"):
        write_demo_dataset(tmp_path, DemoSizes(6, 6))
    assert (tmp_path / "thesis.txt").read_text() == "five years of work"
