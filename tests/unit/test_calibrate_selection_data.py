"""Which images of a build calibrate: drawn, candidates, or those of a manifest, and never the held-out ones."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from explained_graphs import GraphBuilder
from PIL import Image

from edgekit.calibrate.manifest import SET_NAME, CalibrationManifest, manifest_of, write_manifest
from edgekit.calibrate.options import CalibrateOptions
from edgekit.calibrate.selection import ChosenImage
from edgekit.config.recipe import Recipe
from edgekit.errors import BadInputError, IntegrityError
from edgekit.images.imageset import read_imageset, select_balanced, split_imageset
from edgekit.images.views import ImageView
from edgekit.interface.card import InputSpec, ModelCard
from edgekit.pipeline.data import BuildData, DataRequest, final_calibration, load_data

CARD = ModelCard(InputSpec(8, 8), ("a", "b", "c"))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Three classes with twelve training and two held-out images each."""
    rng = np.random.default_rng(2)
    for split, count in (("train", 12), ("val", 2)):
        for label in CARD.classes:
            place = tmp_path / "data" / split / label
            place.mkdir(parents=True)
            for number in range(count):
                pixels = rng.integers(0, 256, (8, 8, 3)).astype(np.uint8)
                Image.fromarray(pixels).save(place / f"{number}.png")
    return tmp_path / "data"


def request(data: Path, calib: Path | None = None, **options: object) -> DataRequest:
    calibrate = CalibrateOptions(**{"images": 6, **options})  # type: ignore[arg-type]
    return DataRequest.from_recipe(replace(Recipe(), calibrate=calibrate), data, calib, seed=3)


def loaded(wanted: DataRequest) -> BuildData:
    return load_data(wanted, CARD)


def test_balanced_images_are_final(data: Path) -> None:
    found = loaded(request(data))
    assert found.candidates is None
    assert Counter(found.calibration.labels.tolist()) == {0: 2, 1: 2, 2: 2}


@pytest.mark.parametrize("pool", [1, 3])
def test_candidates_are_a_balanced_pool_that_begins_with_the_drawn_images(data: Path, pool: int) -> None:
    found = loaded(request(data, selection="diverse", pool=pool))
    assert found.candidates is not None
    assert len(found.candidates) == 6 * pool
    assert len(set(Counter(found.candidates.labels.tolist()).values())) == 1
    assert found.calibration.items == found.candidates.items[:6]
    # Until there is a graph to ask, the build has the images it had without candidates.
    assert found.calibration.items == loaded(request(data)).calibration.items


def test_candidates_of_an_unlabelled_folder(data: Path) -> None:
    found = loaded(request(data, data / "train", selection="diverse", pool=4))
    assert found.candidates is not None
    assert len(found.candidates) == 24
    assert set(found.candidates.labels.tolist()) == {-1}


def test_all_images_are_candidates_where_all_calibrate(data: Path) -> None:
    found = loaded(request(data, images=0, selection="diverse"))
    assert found.candidates is not None
    assert found.calibration.items == found.candidates.items
    assert len(found.calibration) == 36


@pytest.mark.parametrize("selection", ["balanced", "diverse"])
def test_held_out_images_are_refused_even_as_candidates(data: Path, selection: str) -> None:
    with pytest.raises(BadInputError, match="must stay unseen") as raised:
        loaded(request(data, data, images=20, selection=selection, pool=2))
    assert "--calib" in str(raised.value.hint)


def manifest(data: Path, path: Path, split: str) -> Path:
    found = split_imageset(read_imageset(data, CARD.classes))
    items = select_balanced(found.train if split == "train" else found.held_out, 4, seed=9)
    write_manifest(path, manifest_of([ChosenImage(item, None, None, None, "drawn") for item in items], "balanced"))
    return path


@pytest.mark.parametrize("selection", ["balanced", "diverse"])
def test_a_manifest_decides_alone(data: Path, tmp_path: Path, selection: str) -> None:
    written = manifest(data, tmp_path / "set.json", "train")
    found = loaded(request(data, written, selection=selection))
    expected = select_balanced(split_imageset(read_imageset(data, CARD.classes)).train, 4, seed=9)
    assert found.calibration.digests == tuple(item.digest for item in expected)
    assert found.calibration.labels.tolist() == [item.label for item in expected]
    assert found.candidates is None


def test_a_manifests_images_may_lie_elsewhere(data: Path, tmp_path: Path) -> None:
    written = manifest(data, tmp_path / "set.json", "train")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    for path in (data / "train").rglob("*.png"):
        (elsewhere / f"{path.parent.name}-{path.name}").write_bytes(path.read_bytes())
    found = loaded(replace(request(data, written), calib_root=elsewhere))
    assert {item.path.parent for item in found.calibration.items} == {elsewhere}


@pytest.mark.parametrize("root", ["absent", "empty", "other"])
def test_a_root_without_the_sets_images_is_refused_with_the_way_out(data: Path, tmp_path: Path, root: str) -> None:
    written = manifest(data, tmp_path / "set.json", "train")
    (tmp_path / "empty").mkdir()
    with pytest.raises(BadInputError) as raised:
        loaded(replace(request(data, written), calib_root=data / "val" if root == "other" else tmp_path / root))
    assert raised.value.where == str(data / "val" if root == "other" else tmp_path / root)
    if root == "other":
        assert "--root" in str(raised.value.hint)


@pytest.mark.parametrize("calib", [None, "train", "absent.json"])
def test_a_root_without_a_set_is_refused(data: Path, calib: str | None) -> None:
    wanted = request(data, None if calib is None else data / calib)
    with pytest.raises(BadInputError, match="and no set") as raised:
        loaded(replace(wanted, calib_root=data))
    assert SET_NAME in str(raised.value.expected)


def test_a_manifest_of_held_out_images_is_refused(data: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="must stay unseen"):
        loaded(request(data, manifest(data, tmp_path / "set.json", "val")))


def test_a_file_that_is_no_manifest_is_refused(data: Path, tmp_path: Path) -> None:
    (tmp_path / "set.json").write_text("{}", encoding="utf-8")
    with pytest.raises(IntegrityError, match="malformed"):
        loaded(request(data, tmp_path / "set.json"))


def test_the_limit_counts_for_a_manifest_too(data: Path, tmp_path: Path) -> None:
    # The stage refuses what a recipe does not allow; reading gives all of the set and cuts nothing in silence.
    found = loaded(request(data, manifest(data, tmp_path / "set.json", "train"), images=2))
    assert len(found.calibration) == 4


# Once there is a graph


def graph(folder: Path) -> Path:
    g = GraphBuilder(side=8)
    g.pooled_head(g.relu(g.conv("image", 3, 8)), 8, 3, 64)
    (folder / "fp32.onnx").write_bytes(g.model().SerializeToString())
    return folder / "fp32.onnx"


def final(wanted: DataRequest, file: Path, **options: object) -> tuple[BuildData, ImageView, CalibrationManifest]:
    found = loaded(wanted)
    chosen = CalibrateOptions(**{"images": 6, **options})  # type: ignore[arg-type]
    return found, *final_calibration(found, file, CARD.input, chosen, seed=3)


def test_a_draw_stays_as_it_is(data: Path, tmp_path: Path) -> None:
    found, view, written = final(request(data), tmp_path / "no graph is read")
    assert view.items == found.calibration.items
    assert (written.digests, written.selection) == (view.digests, "balanced")


def test_candidates_are_asked(data: Path, tmp_path: Path) -> None:
    found, view, written = final(request(data, selection="diverse"), graph(tmp_path), selection="diverse")
    assert found.candidates is not None
    assert set(view.digests) < set(found.candidates.digests)
    assert Counter(view.labels.tolist()) == {0: 2, 1: 2, 2: 2}
    assert (written.digests, written.selection) == (view.digests, "diverse")
    assert "farthest" in written.images[-1].why
    # What was written down gives the same images again, and the same reasons.
    write_manifest(tmp_path / "set.json", written)
    _, again, kept = final(request(data, tmp_path / "set.json"), tmp_path / "no graph is read")
    assert again.items == tuple(replace(item, split=None) for item in view.items)
    assert kept == written
