"""Pictures: colours against their source, overlays against their definition, sheets against hostile words."""

from __future__ import annotations

import base64
import io

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from test_report_example import Case, example_report

from edgekit.errors import DefectError, IntegrityError
from edgekit.report.colours import ENGINE_HUE, TEACHER_HUE, difference_colours, map_colours
from edgekit.report.explain import explain_overlay
from edgekit.report.images import data_uri, difference_overlay, enlarged, outlined, overlay, png_bytes
from edgekit.report.sheet import comparison_sheet

Pixels = npt.NDArray[np.uint8]


def decoded(data: bytes) -> Pixels:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def picture(side: int = 24, seed: int = 0) -> Pixels:
    return np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)


def luma(colours: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
    return np.asarray(colours, dtype=np.float64) @ np.array([0.2126, 0.7152, 0.0722])


def test_the_scale_is_the_published_viridis() -> None:
    colormaps = pytest.importorskip("matplotlib", reason="the reference needs matplotlib").colormaps
    values = np.arange(256) / 255
    reference = np.rint(colormaps["viridis"](np.arange(256))[:, :3] * 255)
    assert np.abs(np.rint(map_colours(values)) - reference).max() <= 1


def test_the_scale_gets_lighter_all_the_way_so_that_grey_print_shows_it() -> None:
    lightness = luma(map_colours(np.linspace(0, 1, 256)))
    assert (np.diff(lightness) > 0).all()
    assert np.array_equal(map_colours(np.array([-3.0, 7.0])), map_colours(np.array([0.0, 1.0])))


def test_differences_tell_the_sign_by_hue() -> None:
    assert difference_colours(np.array([0.3, -0.3])).tolist() == [list(ENGINE_HUE), list(TEACHER_HUE)]


def test_an_overlay_is_brightest_where_the_map_is_strongest() -> None:
    grey = np.full((40, 40, 3), 100, dtype=np.uint8)
    values = np.zeros((5, 5))
    values[1, 3] = 2.0
    drawn = overlay(grey, values)
    strongest = np.unravel_index(np.argmax(luma(drawn)), (40, 40))
    assert (strongest[0] // 8, strongest[1] // 8) == (1, 3)
    # Where nothing speaks for the class, the image stands in plain grey.
    assert (drawn[32:, :8] == drawn[32, 0, 0]).all()


@given(scale=st.floats(1e-6, 1e6), seed=st.integers(0, 99))
def test_an_overlay_does_not_depend_on_the_maps_unit(scale: float, seed: int) -> None:
    values = np.random.default_rng(seed).random((4, 4))
    difference = overlay(picture(), values).astype(int) - overlay(picture(), values * scale).astype(int)
    assert np.abs(difference).max() <= 1


def test_an_empty_map_leaves_the_grey_image() -> None:
    pixels = picture()
    drawn = overlay(pixels, np.zeros((3, 3), dtype=np.float32))
    assert (drawn.min(axis=2) == drawn.max(axis=2)).all()
    brightness = pixels.astype(float) @ np.array([0.299, 0.587, 0.114])
    assert np.corrcoef(drawn[..., 0].ravel(), brightness.ravel())[0, 1] > 0.999
    assert np.array_equal(drawn, overlay(pixels, -np.ones((3, 3))))


@pytest.mark.parametrize("broken", [np.nan, np.inf, -np.inf])
def test_cells_that_are_not_finite_are_striped_and_spoil_no_other(broken: float) -> None:
    values = np.zeros((4, 4))
    values[3, 3] = 1.0
    whole = overlay(picture(32), values)
    values[0, 1] = broken
    drawn = overlay(picture(32), values)
    place = np.zeros((32, 32), dtype=bool)
    place[:8, 8:16] = True
    assert set(np.unique(drawn[place])) == {0, 255}
    assert np.array_equal(drawn[~place], whole[~place])


def test_a_difference_shows_both_directions_and_nothing_for_equal_maps() -> None:
    grey = np.full((32, 32, 3), 120, dtype=np.uint8)
    left, right = np.zeros((4, 4)), np.zeros((4, 4))
    left[1, 0], right[1, 3] = 5.0, 0.5
    drawn = difference_overlay(grey, left, right).astype(int)
    assert drawn[12, 2, 2] > drawn[12, 2, 0] + 50, "blue where the engine looks less"
    assert drawn[12, 29, 0] > drawn[12, 29, 2] + 50, "vermillion where it looks more"
    same = difference_overlay(grey, left, left * 7)
    assert (same == same[0, 0, 0]).all()


def test_an_outline_follows_the_mask_and_is_seen_on_black_and_on_white() -> None:
    mask = np.zeros((12, 12), dtype=bool)
    mask[3:9, 4:8] = True
    for ground in (0, 255):
        drawn = outlined(np.full((12, 12, 3), ground, dtype=np.uint8), mask)
        assert (drawn[3, 4:8] == 255).all()
        assert (drawn[2, 4:8] == 0).all()
        assert (drawn[5, 5] == ground).all()
        assert (drawn[0, 0] == ground).all()
    whole = np.full((5, 5, 3), 9, dtype=np.uint8)
    for everywhere in (True, False):
        assert np.array_equal(outlined(whole, np.full((5, 5), everywhere)), whole)


@given(height=st.integers(1, 40), width=st.integers(1, 40), least=st.integers(1, 100))
def test_enlarging_repeats_pixels_as_few_times_as_it_takes(height: int, width: int, least: int) -> None:
    array = np.arange(height * width).reshape(height, width)
    large = enlarged(array, least)
    factor = large.shape[0] // height
    assert large.shape == (height * factor, width * factor)
    assert np.array_equal(large[::factor, ::factor], array)
    assert min(large.shape) >= least
    assert factor == 1 or min(height, width) * (factor - 1) < least


def test_png_is_lossless_and_the_same_every_time() -> None:
    pixels = picture(17)
    assert np.array_equal(decoded(png_bytes(pixels)), pixels)
    assert png_bytes(pixels) == png_bytes(pixels.copy())


def test_data_uris_shrink_what_is_large_and_keep_its_shape() -> None:
    wide = np.zeros((300, 600, 3), dtype=np.uint8)
    head, _, body = data_uri(wide, 192).partition(",")
    assert head == "data:image/jpeg;base64"
    assert decoded(base64.b64decode(body)).shape == (96, 192, 3)


@pytest.mark.parametrize(
    ("pixels", "values"),
    [
        (np.zeros((4, 4, 3)), np.zeros((2, 2))),
        (np.zeros((4, 4, 4), dtype=np.uint8), np.zeros((2, 2))),
        (np.zeros((0, 4, 3), dtype=np.uint8), np.zeros((2, 2))),
        (np.zeros((4, 4, 3), dtype=np.uint8), np.zeros((1, 2, 2))),
        (np.zeros((4, 4, 3), dtype=np.uint8), np.zeros((2, 0))),
        (np.zeros((4, 4, 3), dtype=np.uint8), np.zeros((2, 2), dtype=np.int64)),
    ],
)
def test_what_is_no_image_or_no_map_is_refused(pixels: Pixels, values: npt.NDArray[np.float64]) -> None:
    with pytest.raises(DefectError):
        overlay(pixels, values)


def test_maps_of_different_shapes_have_no_difference() -> None:
    with pytest.raises(DefectError, match="different shapes"):
        difference_overlay(picture(), np.zeros((2, 2)), np.zeros((2, 3)))


def test_a_sheet_has_a_column_a_sample_and_shows_what_it_says() -> None:
    data = example_report()
    one, three = (decoded(comparison_sheet(data.golden, data.engine_maps, chosen)) for chosen in ([10], [10, 1, 5]))
    side = enlarged(data.golden.pixels[10], 150).shape[0]
    assert one.shape[0] == three.shape[0]
    assert three.shape[1] - one.shape[1] == 2 * (side + 10)
    # The three pictures of the column stand in it, pixel for pixel.
    large = enlarged(data.golden.pixels[10], 150)
    for wanted in (large, overlay(large, data.golden.maps[10]), overlay(large, data.engine_maps[10])):
        assert _contains(one, wanted)
    told = decoded(comparison_sheet(data.golden, data.engine_maps, [10], engine_class=np.full(len(data.golden), -1)))
    assert told.shape[0] > one.shape[0], "a line more for the prediction that flipped"


def _contains(sheet: Pixels, wanted: Pixels) -> bool:
    height, width = wanted.shape[:2]
    corners = np.argwhere((sheet[: -height + 1, : -width + 1] == wanted[0, 0]).all(axis=2))
    return any(np.array_equal(sheet[y : y + height, x : x + width], wanted) for y, x in corners)


def test_a_sheet_survives_long_and_hostile_class_names() -> None:
    names = ("<b>" + "x" * 100_000, "two\nlines\r\n\t\x00", "\u202egnp", "bar")
    data = example_report(Case(classes=names, samples=8))
    plain = example_report(Case(samples=8))
    hostile, usual = (decoded(comparison_sheet(each.golden, each.engine_maps, [0, 1])) for each in (data, plain))
    assert hostile.shape == usual.shape


@pytest.mark.parametrize("chosen", [[], [-1], [90]])
def test_a_sheet_of_samples_that_are_not_there_is_refused(chosen: list[int]) -> None:
    data = example_report()
    with pytest.raises(DefectError, match="not there"):
        comparison_sheet(data.golden, data.engine_maps, chosen)


def test_an_explanation_shows_the_teacher_only_where_it_is_known() -> None:
    data = example_report()
    pixels, values = data.golden.pixels[10], data.engine_maps[10]
    alone = decoded(explain_overlay(pixels, values, class_name="cross", probability=0.98))
    both = decoded(
        explain_overlay(pixels, values, class_name="cross", probability=0.98, teacher_map=data.golden.maps[10])
    )
    large = enlarged(pixels, 320)
    assert both.shape[1] - alone.shape[1] == large.shape[1] + 10
    assert _contains(alone, overlay(large, values))
    assert _contains(both, overlay(large, data.golden.maps[10]))
    assert not _contains(alone, overlay(large, data.golden.maps[10]))


def test_an_explanation_of_a_broken_or_empty_map_is_drawn_all_the_same() -> None:
    pixels = picture()
    for values in (np.zeros((2, 2)), np.full((2, 2), np.nan)):
        assert decoded(
            explain_overlay(pixels, values, class_name="", probability=None, teacher_map=np.ones((2, 2)))
        ).any()


def test_maps_of_two_builds_are_not_shown_together() -> None:
    with pytest.raises(IntegrityError, match="different shapes"):
        explain_overlay(picture(), np.ones((2, 2)), class_name="a", probability=0.5, teacher_map=np.ones((3, 3)))
