"""Calibration sets as files: written, read strictly, found again by content, and kept apart from the golden set."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from edgekit.calibrate.manifest import (
    CalibrationManifest,
    ManifestImage,
    items_of_manifest,
    manifest_of,
    read_manifest,
    refuse_leak,
    write_manifest,
)
from edgekit.calibrate.selection import ChosenImage
from edgekit.core.canonical import write_json
from edgekit.core.digests import digest_file
from edgekit.errors import BadInputError, IntegrityError
from edgekit.images.imageset import ImageItem, read_unlabelled


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "images"
    (root / "deep").mkdir(parents=True)
    for index in range(6):
        place = root / "deep" if index % 2 else root
        pixels = np.random.default_rng(index).integers(0, 256, (8, 8, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(place / f"{index}.png")
    return root


def chosen(folder: Path) -> list[ChosenImage]:
    items = read_unlabelled(folder).items
    return [ChosenImage(item, 1, 0.5, None, f"reason {number}") for number, item in enumerate(items[::-1])]


def test_a_set_is_read_as_it_was_written(folder: Path, tmp_path: Path) -> None:
    manifest = manifest_of(chosen(folder), "diverse")
    write_manifest(tmp_path / "set.json", manifest)
    assert read_manifest(tmp_path / "set.json") == manifest
    assert manifest.selection == "diverse"
    assert manifest.digests == tuple(entry.item.digest for entry in chosen(folder))
    assert [image.why for image in manifest.images] == [f"reason {number}" for number in range(6)]


def test_copies_are_written_down_once(folder: Path) -> None:
    entries = chosen(folder)
    assert manifest_of([*entries, *entries[:2]], "balanced") == manifest_of(entries, "balanced")
    assert manifest_of([entries[1], entries[0], entries[1]], "balanced").digests == (
        entries[1].item.digest,
        entries[0].item.digest,
    )


def test_its_digest_covers_order_names_labels_and_reasons() -> None:
    one = ManifestImage("a.png", "a" * 64, 1, "drawn")
    two = ManifestImage("b.png", "b" * 64, None, "drawn")
    others = [
        CalibrationManifest("balanced", (two, one)),
        CalibrationManifest("diverse", (one, two)),
        CalibrationManifest("balanced", (one,)),
        *(
            CalibrationManifest("balanced", (ManifestImage(**{**vars(one), key: value}), two))
            for key, value in (("name", "c.png"), ("digest", "c" * 64), ("label", 0), ("why", ""))
        ),
    ]
    digests = {manifest.digest for manifest in [CalibrationManifest("balanced", (one, two)), *others]}
    assert len(digests) == len(others) + 1


# Reuse


def test_images_are_found_in_the_order_and_with_the_labels_of_the_set(folder: Path) -> None:
    entries = chosen(folder)
    labelled = [ChosenImage(labelled_as(entry.item, number), 0, None, None, "") for number, entry in enumerate(entries)]
    found = items_of_manifest(manifest_of(labelled, "balanced"), folder)
    assert [item.digest for item in found] == [entry.item.digest for entry in entries]
    assert [item.label for item in found] == list(range(6))
    assert [item.path for item in found] == [entry.item.path for entry in entries]


def labelled_as(item: ImageItem, label: int) -> ImageItem:
    return ImageItem(item.path, item.name, label, item.split, item.mask, item.digest)


def test_images_are_found_where_they_were_moved_to(folder: Path) -> None:
    manifest = manifest_of(chosen(folder), "balanced")
    (folder / "0.png").rename(folder / "elsewhere.png")
    # Two that swapped names: the content decides.
    (folder / "2.png").rename(folder / "was-2.png")
    (folder / "4.png").rename(folder / "2.png")
    (folder / "was-2.png").rename(folder / "4.png")
    found = items_of_manifest(manifest, folder)
    assert tuple(item.digest for item in found) == manifest.digests
    assert {item.name for item in found} >= {"elsewhere.png", "2.png", "4.png"}


def test_a_named_file_is_preferred_to_its_copies(folder: Path) -> None:
    manifest = manifest_of(chosen(folder), "balanced")
    (folder / "copy.png").write_bytes((folder / "0.png").read_bytes())
    (folder / "2.png").rename(folder / "moved.png")
    assert {item.name for item in items_of_manifest(manifest, folder)} >= {"0.png", "moved.png"}


def test_what_is_lost_is_named(folder: Path) -> None:
    manifest = manifest_of(chosen(folder), "balanced")
    (folder / "0.png").unlink()
    Image.fromarray(np.zeros((8, 8, 3), dtype=np.uint8)).save(folder / "2.png")
    with pytest.raises(BadInputError) as raised:
        items_of_manifest(manifest, folder)
    assert "2 of them" in str(raised.value.found)
    assert "0.png (missing)" in str(raised.value.found)
    assert "2.png (changed)" in str(raised.value.found)


def test_names_do_not_lead_out_of_the_folder(folder: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside.png"
    outside.write_bytes((folder / "0.png").read_bytes())
    (folder / "0.png").unlink()
    digest = digest_file(outside)
    manifest = CalibrationManifest("balanced", (ManifestImage("../outside.png", digest, None, ""),))
    with pytest.raises(BadInputError, match="not in the folder"):
        items_of_manifest(manifest, folder)


def test_a_file_that_is_no_image_is_refused_even_under_its_digest(folder: Path) -> None:
    (folder / "text.png").write_bytes(b"not an image")
    digest = digest_file(folder / "text.png")
    manifest = CalibrationManifest("balanced", (ManifestImage("text.png", digest, None, ""),))
    with pytest.raises(BadInputError, match="cannot be decoded"):
        items_of_manifest(manifest, folder)


# Strict reading


def without(key: str) -> Callable[[dict[str, Any]], None]:
    return lambda raw: raw.pop(key)


def first(**changes: Any) -> Callable[[dict[str, Any]], None]:
    return lambda raw: raw["images"][0].update(changes)


def twice(raw: dict[str, Any]) -> None:
    raw["images"].append(raw["images"][0])


def same_name(raw: dict[str, Any]) -> None:
    raw["images"][0]["name"] = raw["images"][1]["name"]


MALFORMED: dict[str, Callable[[dict[str, Any]], None]] = {
    "no format": without("format"),
    "another format": lambda raw: raw.update(format="edgekit.calibration-set/2"),
    "no digest": without("digest"),
    "one more key": lambda raw: raw.update(extra=1),
    "no images": lambda raw: raw.update(images=[]),
    "images no list": lambda raw: raw.update(images={}),
    "selection no text": lambda raw: raw.update(selection=None),
    "image no mapping": lambda raw: raw["images"].insert(0, "a.png"),
    "image with another key": first(extra=1),
    "label no integer": first(label="1"),
    "label a truth value": first(label=True),
    "label negative": first(label=-1),
    "digest too short": first(digest="ab"),
    "digest in capitals": first(digest="A" * 64),
    "name no text": first(name=3),
    "reason no text": first(why=None),
    "an image twice": twice,
    "a name twice": same_name,
    # Each well-formed by itself: the digest over all tells.
    "label changed": first(label=7),
    "reason changed": first(why="because"),
    "order changed": lambda raw: raw["images"].reverse(),
    "image left out": lambda raw: raw["images"].pop(),
}


@pytest.mark.parametrize("case", MALFORMED)
def test_what_was_changed_is_refused(folder: Path, tmp_path: Path, case: str) -> None:
    raw = json.loads(json.dumps(manifest_of(chosen(folder), "balanced").to_dict()))
    MALFORMED[case](raw)
    write_json(tmp_path / "set.json", raw)
    with pytest.raises(IntegrityError, match="malformed") as raised:
        read_manifest(tmp_path / "set.json")
    assert "set.json" in str(raised.value.where)


@pytest.mark.parametrize("data", [b"", b"[]", b"nothing", b'{"format": "edgekit.calibration-set/1"}'])
def test_what_is_no_set_is_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "set.json").write_bytes(data)
    with pytest.raises(IntegrityError):
        read_manifest(tmp_path / "set.json")


def test_a_missing_file_is_bad_input(tmp_path: Path) -> None:
    with pytest.raises(BadInputError):
        read_manifest(tmp_path / "nothing.json")


# Leakage


def test_leakage_is_refused_by_name(folder: Path) -> None:
    manifest = manifest_of(chosen(folder), "balanced")
    with pytest.raises(BadInputError, match="must stay unseen") as raised:
        refuse_leak(manifest.images, {manifest.digests[2], "f" * 64}, hint="choose others")
    assert manifest.images[2].name in str(raised.value.found)
    assert raised.value.hint == "choose others"


def test_apart_from_the_golden_set_all_is_well(folder: Path) -> None:
    manifest = manifest_of(chosen(folder), "balanced")
    refuse_leak(manifest.images, {"f" * 64}, hint="")
    refuse_leak(read_unlabelled(folder).items, (), hint="")
