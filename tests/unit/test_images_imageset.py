"""Image sets: layouts, refusals, splits and choices."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from edgekit.core.digests import digest_file
from edgekit.errors import BadInputError
from edgekit.images.imageset import (
    HELD_OUT_SHARE,
    ImageItem,
    load_masks,
    load_pixels,
    read_imageset,
    read_unlabelled,
    select_balanced,
    split_imageset,
)

CLASSES = ("cat", "dog", "owl")


def _write_image(path: Path, value: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.zeros((4, 5, 3), dtype=np.uint8)
    pixels[0, 0] = (value & 255, value >> 8, 7)
    Image.fromarray(pixels).save(path)


def _folder(root: Path, images: Mapping[str, int]) -> Path:
    for name, value in images.items():
        _write_image(root / name, value)
    return root


def _table(root: Path, text: str) -> Path:
    root.mkdir(exist_ok=True)
    (root / "labels.csv").write_text(text, encoding="utf-8")
    return root


def test_class_folders(tmp_path: Path) -> None:
    _folder(tmp_path, {"dog/b.png": 1, "cat/a.png": 2, "cat/more/c.jpg": 3, ".hidden/x.png": 4, "dog/.x/y.png": 5})
    (tmp_path / "dog" / "notes.txt").write_text("not an image")
    found = read_imageset(tmp_path, CLASSES)
    assert [(item.name, item.label, item.split) for item in found.items] == [
        ("cat/a.png", 0, None),
        ("cat/more/c.jpg", 0, None),
        ("dog/b.png", 1, None),
    ]
    assert found.items[0].digest == digest_file(tmp_path / "cat" / "a.png")
    assert found.rejected == ()


def test_class_folders_under_splits(tmp_path: Path) -> None:
    _folder(tmp_path, {"train/dog/b.png": 1, "val/cat/a.png": 2, "test/owl/c.png": 3})
    found = read_imageset(tmp_path, CLASSES)
    assert [(item.name, item.label, item.split) for item in found.items] == [
        ("test/owl/c.png", 2, "test"),
        ("train/dog/b.png", 1, "train"),
        ("val/cat/a.png", 0, "val"),
    ]


def test_a_class_called_train_is_a_class(tmp_path: Path) -> None:
    _folder(tmp_path, {"train/a.png": 1, "bus/b.png": 2})
    found = read_imageset(tmp_path, ("bus", "train"))
    assert [(item.label, item.split) for item in found.items] == [(0, None), (1, None)]


def test_a_table_decides_alone(tmp_path: Path) -> None:
    _folder(tmp_path, {"x/1.png": 1, "x/2.png": 2, "m/1.png": 3, "cat/ignored.png": 4})
    _table(tmp_path, "\ufeffimage,split,label,mask\nx/2.png,val,owl,\nx/1.png,train,cat,m/1.png\n\n")
    Image.fromarray(np.eye(5, dtype=np.uint8)[:4]).save(tmp_path / "m" / "1.png")
    found = read_imageset(tmp_path, CLASSES)
    assert [(item.name, item.label, item.split) for item in found.items] == [
        ("x/1.png", 0, "train"),
        ("x/2.png", 2, "val"),
    ]
    masks = load_masks(found.items, 4, 5)
    assert np.array_equal(masks[0], np.eye(5, dtype=bool)[:4])
    assert not masks[1].any()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "header"),
        ("image\na.png\n", "header"),
        ("image,label,colour\na.png,cat,red\n", "header"),
        ("image,label,label\na.png,cat,cat\n", "header"),
        ("image,label\na.png,cat,dog\n", "wrong number of cells"),
        ("image,label\na.png,fish\nb.png,dog\n", r"'cat'.*\n.*'fish'"),
        ("image,label,split\na.png,cat,train\nb.png,dog,holdout\n", "holdout"),
        ("image,label,split\na.png,cat,train\nb.png,dog,\n", "1 of 2 lines without one"),
        ("image,label\na.png,cat\na.png,dog\n", "listed twice"),
        ("image,label\n", "lists no images"),
        ('image,label\n"a.png,cat\n', "comma-separated"),
        ("image,label\n../a.png,cat\n", "outside"),
        ("image,label\nx/../../a.png,cat\n", "outside"),
        ("image,label\n/etc/a.png,cat\n", "outside"),
        ("image,label\na\0.png,cat\n", r"outside|comma-separated"),
        ("image,label\n,cat\n", "outside"),
        ("image,label,mask\na.png,cat,../m.png\n", "outside"),
    ],
)
def test_malformed_tables_are_refused(tmp_path: Path, text: str, message: str) -> None:
    _folder(tmp_path / "data", {"a.png": 1, "b.png": 2})
    with pytest.raises(BadInputError, match=message):
        read_imageset(_table(tmp_path / "data", text), CLASSES)


def test_a_table_that_is_not_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_bytes(b"image,label\n\xff\xfe,cat\n")
    with pytest.raises(BadInputError, match="UTF-8"):
        read_imageset(tmp_path, CLASSES)


def test_a_link_out_of_the_folder_is_refused(tmp_path: Path) -> None:
    _write_image(tmp_path / "outside.png", 1)
    data = _table(tmp_path / "data", "image,label\nlink.png,cat\n")
    (data / "link.png").symlink_to(tmp_path / "outside.png")
    with pytest.raises(BadInputError, match="outside"):
        read_imageset(data, CLASSES)


def test_missing_and_empty_folders_are_refused(tmp_path: Path) -> None:
    (tmp_path / "empty" / "cat").mkdir(parents=True)
    (tmp_path / "file").write_text("x")
    for name, message in (("nowhere", "no such file"), ("file", "folder is needed"), ("empty", "holds no images")):
        with pytest.raises(BadInputError, match=message):
            read_imageset(tmp_path / name, CLASSES)
    with pytest.raises(BadInputError, match="holds no images"):
        read_unlabelled(tmp_path / "empty")


def test_images_without_labels_are_refused_with_the_layouts(tmp_path: Path) -> None:
    _folder(tmp_path, {"a.png": 1, "b.png": 2})
    with pytest.raises(BadInputError, match=r"2 images but no labels[\s\S]*labels\.csv"):
        read_imageset(tmp_path, CLASSES)


def test_folders_that_are_no_classes_are_named(tmp_path: Path) -> None:
    _folder(tmp_path, {f"kind{index}/a.png": index for index in range(8)} | {"cat/a.png": 9})
    with pytest.raises(BadInputError) as caught:
        read_imageset(tmp_path, CLASSES)
    assert caught.value.found == "'kind0', 'kind1', 'kind2', 'kind3', 'kind4' and 3 more"
    assert caught.value.expected == "'dog', 'owl'"


def test_one_class_is_not_enough(tmp_path: Path) -> None:
    _folder(tmp_path, {"cat/a.png": 1, "cat/b.png": 2})
    (tmp_path / "dog").mkdir()
    with pytest.raises(BadInputError, match="all of one class"):
        read_imageset(tmp_path, CLASSES)


@pytest.mark.parametrize(
    ("count", "broken", "share", "refused"),
    [(10, 1, 0.01, False), (10, 2, 0.01, True), (10, 1, 0.0, True), (40, 4, 0.1, False), (40, 5, 0.1, True)],
)
def test_corrupt_files_are_tolerated_up_to_a_share(
    tmp_path: Path, count: int, broken: int, share: float, refused: bool
) -> None:
    _folder(tmp_path, {f"{CLASSES[index % 2]}/{index:02}.png": index for index in range(count)})
    for index in range(broken):
        path = tmp_path / CLASSES[index % 2] / f"{index:02}.png"
        path.write_bytes(path.read_bytes()[:40])
    if refused:
        with pytest.raises(BadInputError, match=r"cat/00\.png: An image cannot be decoded"):
            read_imageset(tmp_path, CLASSES, max_corrupt_share=share)
        return
    found = read_imageset(tmp_path, CLASSES, max_corrupt_share=share)
    assert len(found.items) == count - broken
    assert [item.name for item in found.rejected] == sorted(
        f"{CLASSES[index % 2]}/{index:02}.png" for index in range(broken)
    )


def test_a_listed_file_that_is_missing_counts_as_unusable(tmp_path: Path) -> None:
    _folder(tmp_path, {"a.png": 1, "b.png": 2})
    found = read_imageset(_table(tmp_path, "image,label\na.png,cat\nb.png,dog\ngone.png,owl\n"), CLASSES)
    assert [(item.name, "no such file" in item.reason) for item in found.rejected] == [("gone.png", True)]


def test_nothing_readable_at_all_is_refused_whatever_the_share(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_text("no")
    with pytest.raises(BadInputError, match="unusable"):
        read_unlabelled(tmp_path, max_corrupt_share=0.99)


def test_unlabelled_images_may_lie_anywhere(tmp_path: Path) -> None:
    _folder(tmp_path, {"a.png": 1, "deep/er/b.png": 2})
    assert [(item.name, item.label) for item in read_unlabelled(tmp_path).items] == [
        ("a.png", None),
        ("deep/er/b.png", None),
    ]
    _table(tmp_path, "image,label\ndeep/er/b.png,whatever\n")
    assert [item.name for item in read_unlabelled(tmp_path).items] == ["deep/er/b.png"]


def test_pixels_are_the_images_in_order(tmp_path: Path) -> None:
    _folder(tmp_path, {f"{CLASSES[index % 3]}/{index}.png": index for index in range(20)})
    found = read_imageset(tmp_path, CLASSES)
    pixels = load_pixels(found.items, 4, 5)
    assert [f"{CLASSES[pixel[0, 0, 0] % 3]}/{pixel[0, 0, 0]}.png" for pixel in pixels] == [i.name for i in found.items]


def test_a_file_that_broke_since_it_was_checked_is_named(tmp_path: Path) -> None:
    _folder(tmp_path, {"cat/a.png": 1, "dog/b.png": 2})
    found = read_imageset(tmp_path, CLASSES)
    (tmp_path / "dog" / "b.png").write_bytes(b"gone bad")
    with pytest.raises(BadInputError, match=r"b\.png"):
        load_pixels(found.items, 4, 5)


def _rewrite_nothing(root: Path) -> None:
    """Leave the folder as it is."""


def _add_images(root: Path) -> None:
    _folder(root, {f"cat/new{index}.png": 5000 + index for index in range(7)})


def _rename_images(root: Path) -> None:
    for path in sorted((root / "cat").iterdir()):
        path.rename(path.with_name(f"renamed-{path.name}"))


@pytest.mark.parametrize("change", [_rewrite_nothing, _add_images, _rename_images])
def test_an_image_lands_on_the_same_side_whatever_stands_beside_it(
    tmp_path: Path, change: Callable[[Path], None]
) -> None:
    _folder(tmp_path, {f"{CLASSES[index % 3]}/{index}.png": index for index in range(200)})
    before = split_imageset(read_imageset(tmp_path, CLASSES))
    assert len(before.held_out) / 200 == pytest.approx(HELD_OUT_SHARE, abs=0.1)
    change(tmp_path)
    after = split_imageset(read_imageset(tmp_path, CLASSES))
    assert {item.digest for item in before.held_out} <= {item.digest for item in after.held_out}
    assert {item.digest for item in before.train} <= {item.digest for item in after.train}


def test_given_splits_are_kept_and_their_duplicates_leave_training(tmp_path: Path) -> None:
    _folder(tmp_path, {"train/cat/a.png": 1, "train/dog/b.png": 2, "train/dog/c.png": 3})
    _folder(tmp_path, {"val/cat/x.png": 4, "test/dog/copy-of-b.png": 2})
    split = split_imageset(read_imageset(tmp_path, CLASSES))
    assert [item.name for item in split.train] == ["train/cat/a.png", "train/dog/c.png"]
    assert [item.name for item in split.held_out] == ["test/dog/copy-of-b.png", "val/cat/x.png"]
    assert split.duplicates == 1


def _item(name: str, label: int | None, digest: str | None = None) -> ImageItem:
    return ImageItem(Path(name), name, label, None, None, digest or f"{hash(name) & 0xFFFF:04x}{name}")


LABELS = st.lists(st.integers(0, 4), min_size=1, max_size=60)


@given(labels=LABELS, count=st.integers(1, 70), seed=st.integers(0, 3), data=st.data())
def test_a_choice_is_balanced_and_ignores_the_order_it_was_offered_in(
    labels: list[int], count: int, seed: int, data: st.DataObject
) -> None:
    items = [_item(f"i{index}", label, f"d{index}") for index, label in enumerate(labels)]
    chosen = select_balanced(items, count, seed)
    assert select_balanced(data.draw(st.permutations(items)), count, seed) == chosen
    assert len(set(chosen)) == len(chosen) == min(count, len(items))
    taken, there = Counter(item.label for item in chosen), Counter(labels)
    # No class gave more than another that had images left.
    for label, size in there.items():
        if taken[label] < size:
            assert max(taken.values()) <= taken[label] + 1
    assert select_balanced(items, 0, seed)[:count] == chosen


def test_another_seed_chooses_others() -> None:
    items = [_item(f"i{index}", index % 3, f"d{index}") for index in range(90)]
    assert select_balanced(items, 10, 0) != select_balanced(items, 10, 1)


def test_images_without_labels_can_be_chosen() -> None:
    items = [_item(f"i{index}", None, f"d{index}") for index in range(9)]
    assert len(select_balanced(items, 4, 0)) == 4
