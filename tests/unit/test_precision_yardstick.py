"""Held-out images: divided from a folder, answered by the FP32 graph, or stored; and what they may not share."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from precision_budgets import CARD, MAPS, SPEC, PixelImages, chain, smooth_pixels

from edgekit.core.digests import digest_bytes
from edgekit.engines.protocol import EngineOptions
from edgekit.engines.registry import ENGINES
from edgekit.errors import BadInputError
from edgekit.images.imageset import ImageItem, read_unlabelled
from edgekit.images.views import ImageView
from edgekit.interface.preprocess import preprocess
from edgekit.precision.yardstick import MOST_JUDGED, GraphYardstick, StoredYardstick, divide_images


def items(count: int, copies: int = 0) -> list[ImageItem]:
    names = [*range(count), *range(copies)]
    return [
        ImageItem(Path(f"{place}.png"), f"{place}.png", None, None, None, digest_bytes(str(name).encode()))
        for place, name in enumerate(names)
    ]


@given(st.integers(2, 1200), st.integers(0, 1200), st.integers(0, 5), st.integers(0, 3))
def test_no_image_both_calibrates_and_judges(count: int, wanted: int, seed: int, copies: int) -> None:
    kept, judged = divide_images(items(count, min(copies, count)), wanted, seed, where="here")
    digests = [{item.digest for item in part} for part in (kept, judged)]
    assert not digests[0] & digests[1]
    assert len(digests[0] | digests[1]) == len(kept) + len(judged) == count
    assert 1 <= len(judged) <= MOST_JUDGED
    assert len(kept) >= min(wanted or count, (count + 1) // 2)
    # As many judge as may: ranges take no more than they were promised, unless enough judge already.
    assert len(judged) in (MOST_JUDGED, count - len(kept))
    assert len(judged) == min(MOST_JUDGED, count - min(wanted or count, (count + 1) // 2))


def test_the_division_follows_from_files_and_seed() -> None:
    forwards, backwards = items(40), items(40)[::-1]
    assert divide_images(forwards, 8, 1, where="") == divide_images(backwards, 8, 1, where="")
    assert divide_images(forwards, 8, 1, where="") != divide_images(forwards, 8, 2, where="")


@pytest.mark.parametrize("copies", [0, 1])
def test_one_image_cannot_do_both(copies: int) -> None:
    with pytest.raises(BadInputError, match="cannot both calibrate and judge") as caught:
        divide_images(items(1, copies), 8, 0, where="folder")
    assert caught.value.where == "folder"
    assert "--golden" in str(caught.value.hint)


@pytest.fixture
def graph(tmp_path: Path) -> Path:
    path = tmp_path / "fp32.onnx"
    path.write_bytes(chain().SerializeToString())
    return path


def test_the_fp32_graph_answers_and_explains_its_own_classes(graph: Path) -> None:
    pixels = smooth_pixels(20)
    golden = GraphYardstick(graph, PixelImages(pixels), CARD, MAPS).golden()
    with ENGINES.load("reference").open(graph, EngineOptions()) as runner:
        answer = runner.run(preprocess(pixels, SPEC), np.full(20, -1, dtype=np.int32))
    np.testing.assert_allclose(golden.logits, answer.logits, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(golden.maps, answer.attribution, rtol=1e-4, atol=1e-6)
    assert golden.explained_classes[:, 0].tolist() == answer.logits.argmax(axis=1).tolist()
    assert golden.names == tuple(f"{number}.png" for number in range(20))


def test_its_digest_tells_apart_what_changes_the_answers(graph: Path, tmp_path: Path) -> None:
    base = GraphYardstick(graph, PixelImages(smooth_pixels(4)), CARD, MAPS)
    other = tmp_path / "other.onnx"
    other.write_bytes(chain(seed=4).SerializeToString())
    changed = (
        replace(base, graph=other),
        replace(base, images=PixelImages(smooth_pixels(4, seed=6))),
        replace(base, card=replace(CARD, input=replace(SPEC, mean=(0.1, 0.1, 0.1)))),
        replace(base, map_spec=replace(MAPS, method="other")),
    )
    digests = {item.digest for item in (base, *changed)}
    assert len(digests) == 5
    assert base.digest == replace(base).digest
    stored = StoredYardstick(base.golden())
    assert stored.digest != StoredYardstick(replace(base.golden(), maps=base.golden().maps * 2)).digest
    assert stored.digest == StoredYardstick(base.golden()).digest


def test_calibration_images_that_are_held_out_are_refused(graph: Path, tmp_path: Path) -> None:
    pixels = smooth_pixels(6)
    folder = tmp_path / "images"
    folder.mkdir()
    for number, image in enumerate(pixels):
        Image.fromarray(image).save(folder / f"{number}.png")
    view = ImageView(read_unlabelled(folder).items)
    clean = StoredYardstick(GraphYardstick(graph, PixelImages(smooth_pixels(6, seed=9)), CARD, MAPS).golden())
    clean.refuse_leak(view)
    leaking = StoredYardstick(GraphYardstick(graph, PixelImages(pixels[4:]), CARD, MAPS).golden())
    with pytest.raises(BadInputError, match="must stay unseen") as caught:
        leaking.refuse_leak(view)
    assert caught.value.found == "2 images, such as 4.png, 5.png"


def test_a_golden_set_of_another_network_is_refused(graph: Path) -> None:
    stored = StoredYardstick(GraphYardstick(graph, PixelImages(smooth_pixels(4)), CARD, MAPS).golden())
    stored.check_fits(CARD, "here")
    for what, card in (
        ("classes", replace(CARD, classes=("a", "b", "c", "d", "z"))),
        ("input", replace(CARD, input=replace(SPEC, std=(1.0, 1.0, 1.0)))),
    ):
        with pytest.raises(BadInputError, match=f"their {what} differ") as caught:
            stored.check_fits(card, "here")
        assert caught.value.where == "here"
