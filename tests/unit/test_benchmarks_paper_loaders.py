"""Loaders of the paper's evaluation on small trees that are written here, in each format as it is published."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from paper.coco import compressed_counts, decode_segmentation, load_coco
from paper.datasets import load_busi, load_camvid, load_cifar10, load_folder
from paper.masked_images import nearest
from paper.voc import VOC_CLASSES, load_voc
from PIL import Image

from edgekit.errors import BadInputError

SIDE = 8


def png(values: np.ndarray, mode: str | None = None) -> bytes:
    stream = io.BytesIO()
    image = Image.fromarray(values) if mode is None else Image.fromarray(values).convert(mode)
    image.save(stream, format="PNG")
    return stream.getvalue()


def colours(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


# VOC


@pytest.fixture
def voc(tmp_path: Path) -> Path:
    for folder in ("JPEGImages", "SegmentationClass", "Annotations", "ImageSets/Segmentation", "ImageSets/Main"):
        (tmp_path / folder).mkdir(parents=True)
    values = np.zeros((16, 24), dtype=np.uint8)
    values[2:8, 3:12] = 255  # the border
    values[3:7, 4:11] = 15  # a person inside it
    values[12:, 18:] = 7  # a car
    for name in ("2007_000001", "2007_000002"):
        Image.fromarray(colours(16, 24)).save(tmp_path / "JPEGImages" / f"{name}.jpg")
        mask = Image.fromarray(values if name.endswith("1") else np.zeros_like(values), mode="P")
        mask.putpalette(list(range(256)) * 3)
        mask.save(tmp_path / "SegmentationClass" / f"{name}.png")
        objects = "".join(f"<object><name>{kind}</name><difficult>1</difficult></object>" for kind in ("dog", "cat"))
        (tmp_path / "Annotations" / f"{name}.xml").write_text(f"<annotation>{objects}</annotation>")
    (tmp_path / "ImageSets/Segmentation/val.txt").write_text("2007_000001\n2007_000002\n")
    (tmp_path / "ImageSets/Main/train.txt").write_text("2007_000002\n")
    return tmp_path


def test_voc_masks_are_the_palette_values_and_the_border_is_ignored(voc):
    images = load_voc(voc, "val", 16)
    person, car = VOC_CLASSES.index("person"), VOC_CLASSES.index("car")
    assert images.pairs == ((0, car), (0, person))
    assert images.names == ("2007_000001", "2007_000002")
    assert images.pixels.shape == (2, 16, 16, 3)
    expected = np.zeros((16, 16), dtype=bool)
    columns = [x for x in range(16) if 4 <= int((x + 0.5) * 24 / 16) < 11]
    expected[3:7, columns] = True
    np.testing.assert_array_equal(images.masks[0, person], expected)
    border = images.ignored[0]
    assert border.any()
    assert not (border & expected).any()
    assert 1 not in images.ignored
    assert images.multi_label  # the second image has no class at all
    np.testing.assert_array_equal(np.flatnonzero(images.positive[0]), sorted((car, person)))


def test_voc_border_is_background_in_the_released_code(voc):
    assert load_voc(voc, "val", 16, void="background").ignored == {}


def test_voc_main_has_annotated_objects_and_no_masks(voc):
    images = load_voc(voc, "train", 16, image_set="Main")
    assert {VOC_CLASSES[kind] for kind in np.flatnonzero(images.positive[0])} == {"cat", "dog"}
    assert images.pairs == ()


def test_voc_says_what_is_wrong(voc):
    with pytest.raises(BadInputError, match="not a VOC folder"):
        load_voc(voc, "test", 16)
    with pytest.raises(BadInputError, match="void border"):
        load_voc(voc, "val", 16, void="object")
    path = voc / "SegmentationClass" / "2007_000001.png"
    Image.fromarray(np.full((16, 24), 21, dtype=np.uint8)).save(path)
    with pytest.raises(BadInputError, match="no class"):
        load_voc(voc, "val", 16)
    Image.fromarray(colours(16, 24)).save(path)
    with pytest.raises(BadInputError, match="palette"):
        load_voc(voc, "val", 16)
    path.unlink()
    with pytest.raises(BadInputError, match="no mask"):
        load_voc(voc, "val", 16)


# COCO


def run_lengths(mask: np.ndarray) -> list[int]:
    """Slow definition: count along the columns, background first."""
    counts, value = [0], False
    for pixel in mask.T.ravel():
        if pixel != value:
            counts.append(0)
            value = not value
        counts[-1] += 1
    return counts


def compressed(counts: list[int]) -> str:
    """COCO's text of run lengths, written from its description: groups of five bits, differences from the fourth on."""
    text = ""
    for index, count in enumerate(counts):
        number = count - counts[index - 2] if index > 2 else count
        more = True
        while more:
            group, number = number & 31, number >> 5
            more = number != (-1 if group & 16 else 0)
            text += chr(48 + (group | (32 if more else 0)))
    return text


masks = st.tuples(st.integers(1, 40), st.integers(1, 40), st.integers(0, 2**32 - 1), st.floats(0, 1)).map(
    lambda drawn: np.random.default_rng(drawn[2]).random(drawn[:2]) < drawn[3]
)


@given(masks)
def test_run_lengths_come_back_in_both_forms(mask):
    counts = run_lengths(mask)
    size = list(mask.shape)
    for form in (counts, compressed(counts)):
        decoded = decode_segmentation({"size": size, "counts": form}, *mask.shape, where="test")
        np.testing.assert_array_equal(decoded, mask)


@given(st.lists(st.integers(0, 10**6), min_size=1, max_size=30))
def test_compressed_counts_are_the_counts(counts):
    assert compressed_counts(compressed(counts)) == counts


def test_a_known_compressed_text():
    # A 2 x 2 mask, both pixels of the right column: two of background, two of object.
    np.testing.assert_array_equal(
        decode_segmentation({"size": [2, 2], "counts": "22"}, 2, 2, where="test"), [[False, True], [False, True]]
    )


def test_a_polygon_fills_the_pixels_inside():
    mask = decode_segmentation([[2, 1, 6, 1, 6, 4, 2, 4]], 8, 10, where="test")
    assert mask[1:4, 2:6].all()
    assert not mask[:, 8:].any()
    assert not mask[6:].any()


@pytest.mark.parametrize(
    ("segmentation", "said"),
    [
        ([[1, 2, 3, 4]], "polygon"),
        ({"size": [3, 3], "counts": [9]}, "cannot be read"),
        ({"size": [2, 2], "counts": [3]}, "do not fill"),
        ({"size": [2, 2], "counts": [5, -1]}, "do not fill"),
        ({"size": [2, 2], "counts": "\x01"}, "strange character"),
        ({"size": [2, 2], "counts": "T"}, "end within"),
        ("nothing", "cannot be read"),
    ],
)
def test_a_broken_segmentation_is_named(segmentation, said):
    with pytest.raises(BadInputError, match=said):
        decode_segmentation(segmentation, 2, 2, where="annotation 7")


def test_coco_instances_of_a_class_are_joined_and_crowds_ignored(tmp_path):
    Image.fromarray(colours(8, 8)).save(tmp_path / "a.png")
    Image.fromarray(colours(8, 8)).save(tmp_path / "b.png")
    first, second, crowd = (np.zeros((8, 8), dtype=bool) for _ in range(3))
    first[:2, :2] = second[6:, 6:] = crowd[0] = True

    def annotation(number, mask, category, iscrowd=0):
        segmentation = {"size": [8, 8], "counts": run_lengths(mask)}
        return {
            "id": number,
            "image_id": 5,
            "category_id": category,
            "segmentation": segmentation,
            "iscrowd": iscrowd,
        }

    content = {
        "categories": [{"id": 18, "name": "dog"}, {"id": 3, "name": "car"}],
        "images": [
            {"id": 9, "file_name": "b.png", "height": 8, "width": 8},
            {"id": 5, "file_name": "a.png", "height": 8, "width": 8},
        ],
        "annotations": [annotation(1, first, 18), annotation(2, second, 18), annotation(3, crowd, 3, iscrowd=1)],
    }
    (tmp_path / "instances.json").write_text(json.dumps(content))
    images = load_coco(tmp_path / "instances.json", tmp_path, "val", SIDE)
    assert images.classes == ("car", "dog")
    assert images.names == ("a.png", "b.png")
    assert images.pairs == ((0, 1),)
    np.testing.assert_array_equal(images.masks[0, 1], first | second)
    np.testing.assert_array_equal(images.ignored[0], crowd & ~first)
    np.testing.assert_array_equal(images.positive, [[False, True], [False, False]])
    del content["annotations"][0]["category_id"]
    (tmp_path / "instances.json").write_text(json.dumps(content))
    with pytest.raises(BadInputError, match="not a COCO"):
        load_coco(tmp_path / "instances.json", tmp_path, "val", SIDE)


# Folders and the shared archives


def test_a_folder_with_masks(tmp_path):
    mask = np.zeros((8, 8), dtype=np.uint8)
    mask[2:4, 3:6] = 255
    for name in ("a", "b"):
        Image.fromarray(colours(8, 8, seed=ord(name))).save(tmp_path / f"{name}.png")
    Image.fromarray(mask).save(tmp_path / "a-mask.png")
    (tmp_path / "labels.csv").write_text("image,label,split,mask\na.png,car,val,a-mask.png\nb.png,none,train,\n")
    images = load_folder(tmp_path, ("none", "car"), SIDE)
    assert images.splits == ("val", "train")
    assert images.pairs == ((0, 1),)
    np.testing.assert_array_equal(images.masks[0, 1], mask > 0)
    np.testing.assert_array_equal(images.labels, [1, 0])


def archive(path: Path, members: dict[str, bytes], mode: str = "w") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, mode) as tar:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))


def test_camvid_masks_are_those_of_the_labelled_object(tmp_path):
    values = np.zeros((12, 12), dtype=np.uint8)
    values[2:6, 2:6], values[8:, 8:] = 9, 8
    items = [
        {"image": "images/a.png", "mask": "masks/a.png", "label": 2, "split": "train", "mask_value": 9},
        {"image": "images/b.png", "mask": "masks/b.png", "label": 0, "split": "test"},
    ]
    members = {name: content for letter in "ab" for name, content in _members(letter, values).items()}
    archive(tmp_path / "camvid-crops" / "camvid-crops.tar", members)
    (tmp_path / "camvid-crops" / "labels.json").write_text(json.dumps({"items": items}))
    images = load_camvid(tmp_path, 6)
    assert images.pairs == ((0, 2),)
    np.testing.assert_array_equal(images.masks[0, 2], nearest(values == 9, 6, 6))
    assert len(images.of("train")) == 1
    assert images.of("test").pairs == ()


def _members(letter: str, values: np.ndarray) -> dict[str, bytes]:
    return {f"images/{letter}.png": png(colours(12, 12)), f"masks/{letter}.png": png(values)}


def test_busi_groups_do_not_cross_splits(tmp_path):
    lesion = np.zeros((12, 12), dtype=np.uint8)
    lesion[4:8, 4:8] = 255
    items = [
        {"image": "images/a.png", "mask": "masks/a.png", "label": 1, "split": "train", "group": 3},
        {"image": "images/b.png", "mask": "masks/b.png", "label": 0, "split": "test", "group": 4},
    ]
    members = {
        "images/a.png": png(colours(12, 12)),
        "masks/a.png": png(lesion, "1"),
        "images/b.png": png(colours(12, 12)),
        "masks/b.png": png(np.zeros_like(lesion), "1"),
    }
    archive(tmp_path / "busi" / "busi.tar", members)
    table = tmp_path / "busi" / "labels.json"
    table.write_text(json.dumps({"items": items}))
    images = load_busi(tmp_path, 12)
    assert images.pairs == ((0, 1),)
    np.testing.assert_array_equal(images.masks[0, 1], lesion > 0)
    items[1]["group"] = 3
    table.write_text(json.dumps({"items": items}))
    with pytest.raises(BadInputError, match="crosses splits"):
        load_busi(tmp_path, 12)


def test_cifar_has_labels_and_no_masks(tmp_path):
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "cifar10-resnet20.json").write_text(json.dumps({"classes": ["cat", "dog"]}))
    for split in ("train", "test"):
        members = {f"{split}/{kind}/0000.jpg": png(colours(8, 8)) for kind in ("dog", "cat")}
        archive(tmp_path / "cifar10" / f"{split}.tar.gz", members, "w:gz")
    images = load_cifar10(tmp_path, SIDE)
    np.testing.assert_array_equal(images.of("test").labels, [1, 0])
    assert images.pairs == ()


def test_chosen_images_keep_their_masks(tmp_path):
    mask = np.ones((4, 4), dtype=bool)
    from paper.masked_images import Loaded, gathered

    loaded = [Loaded(str(i), colours(4, 4, i), frozenset({i % 2}), "test", {i % 2: mask}) for i in range(4)]
    images = gathered(loaded, ("a", "b"), "here").chosen([3, 0])
    assert images.names == ("3", "0")
    assert images.pairs == ((0, 1), (1, 0))
    with pytest.raises(BadInputError, match="no images"):
        gathered([], ("a", "b"), "here")
