"""Decoding: one stated rule for every kind of image, and a plain refusal for everything else."""

from __future__ import annotations

import io
import struct
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from edgekit.errors import BadInputError, UnavailableError
from edgekit.images.decode import check_image, decode_image, decode_mask

RNG = np.random.default_rng(0)
COLOUR = RNG.integers(0, 256, size=(9, 7, 3), dtype=np.uint8)


def _encoded(image: Image.Image, form: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def _png_claiming(width: int, height: int) -> bytes:
    """A PNG whose header promises a size that its few bytes of data do not hold."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 99)) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("form", ["PNG", "BMP", "TIFF", "PPM"])
def test_a_fitting_lossless_image_comes_out_byte_for_byte(form: str) -> None:
    assert np.array_equal(decode_image(_encoded(Image.fromarray(COLOUR), form), 9, 7), COLOUR)


def test_a_file_and_its_bytes_are_the_same(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(_encoded(Image.fromarray(COLOUR)))
    assert np.array_equal(decode_image(path, 5, 6), decode_image(path.read_bytes(), 5, 6))


def test_resizing_is_pillows_bilinear_without_keeping_the_aspect() -> None:
    resized = Image.fromarray(COLOUR).resize((12, 4), Image.Resampling.BILINEAR)
    assert np.array_equal(decode_image(_encoded(Image.fromarray(COLOUR)), 4, 12), np.asarray(resized))


def test_grey_becomes_three_equal_channels() -> None:
    grey = COLOUR[..., 0]
    assert np.array_equal(decode_image(_encoded(Image.fromarray(grey)), 9, 7), np.repeat(grey[..., None], 3, axis=2))


def test_one_bit_images_are_black_and_white() -> None:
    bits = COLOUR[..., 0] > 127
    decoded = decode_image(_encoded(Image.fromarray(bits)), 9, 7)
    assert np.array_equal(decoded, np.repeat(bits[..., None] * np.uint8(255), 3, axis=2))


def test_a_palette_is_looked_up() -> None:
    few = (COLOUR // 128) * 127
    palette = Image.fromarray(few).convert("P", palette=Image.Palette.ADAPTIVE, colors=8)
    assert np.array_equal(decode_image(_encoded(palette), 9, 7), few)


def test_transparency_is_dropped_and_not_blended() -> None:
    alpha = RNG.integers(0, 256, size=(9, 7, 1), dtype=np.uint8)
    assert np.array_equal(decode_image(_encoded(Image.fromarray(np.concatenate([COLOUR, alpha], 2))), 9, 7), COLOUR)


@pytest.mark.parametrize("form", ["PNG", "TIFF"])
def test_sixteen_bit_grey_keeps_its_high_byte(form: str) -> None:
    values = RNG.integers(0, 65536, size=(9, 7), dtype=np.uint16)
    decoded = decode_image(_encoded(Image.fromarray(values), form), 9, 7)
    assert np.array_equal(decoded[..., 0], values // 256)
    assert np.array_equal(decoded[..., 0], decoded[..., 2])


@pytest.mark.parametrize(
    ("orientation", "turned"),
    [
        (2, lambda a: a[:, ::-1]),
        (3, lambda a: a[::-1, ::-1]),
        (4, lambda a: a[::-1]),
        (5, lambda a: a.transpose(1, 0, 2)),
        (6, lambda a: np.rot90(a, -1)),
        (8, lambda a: np.rot90(a, 1)),
    ],
)
def test_exif_orientation_is_applied(orientation: int, turned: Any) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    expected = turned(COLOUR)
    assert np.array_equal(decode_image(_encoded(Image.fromarray(COLOUR), exif=exif), *expected.shape[:2]), expected)


def test_of_an_animation_the_first_frame_counts() -> None:
    frames = [Image.fromarray(np.full((6, 6), level, dtype=np.uint8)) for level in (10, 200)]
    data = _encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert (decode_image(data, 6, 6) == 10).all()


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP", "BMP", "TIFF"])
def test_truncated_files_are_refused(form: str) -> None:
    large = Image.fromarray(RNG.integers(0, 256, size=(64, 64, 3), dtype=np.uint8))
    data = _encoded(large, form)
    with pytest.raises(BadInputError, match="cannot be decoded"):
        decode_image(data[: len(data) * 2 // 3], 8, 8)


@pytest.mark.parametrize(
    "content", [b"", b"a text file called picture.png\n", b"%!PS-Adobe-3.0 EPSF-3.0\n", b"\0" * 500]
)
def test_what_is_no_image_is_refused(content: bytes) -> None:
    with pytest.raises(BadInputError, match="cannot be decoded"):
        decode_image(content, 8, 8)


@pytest.mark.parametrize(("width", "height"), [(8000, 8000), (30000, 30000), (2**31 - 1, 2**31 - 1)])
def test_bombs_are_refused_by_their_header(width: int, height: int) -> None:
    with pytest.raises(BadInputError, match=r"too large|cannot be decoded"):
        decode_image(_png_claiming(width, height), 8, 8)


def test_floating_point_images_have_no_eight_bit_meaning() -> None:
    with pytest.raises(BadInputError, match="colour mode"):
        decode_image(_encoded(Image.fromarray(COLOUR[..., 0].astype(np.float32)), "TIFF"), 8, 8)


def test_grey_beyond_sixteen_bits_is_refused() -> None:
    with pytest.raises(BadInputError, match="beyond 16 bits"):
        decode_image(_encoded(Image.fromarray(np.full((4, 4), 70000, dtype=np.int32)), "TIFF"), 4, 4)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match=r"missing\.png"):
        decode_image(tmp_path / "missing.png", 8, 8)


def test_without_pillow_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(UnavailableError, match=r"pip install 'edgekit\[images\]'"):
        decode_image(b"", 8, 8)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(form=st.sampled_from(["PNG", "JPEG", "GIF", "WEBP", "TIFF", "BMP"]), data=st.data())
def test_damaged_bytes_give_an_image_or_a_refusal(form: str, data: st.DataObject) -> None:
    content = bytearray(_encoded(Image.fromarray(COLOUR), form))
    for _ in range(data.draw(st.integers(1, 6))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    try:
        decoded = decode_image(bytes(content), 8, 8)
    except BadInputError:
        return
    assert decoded.shape == (8, 8, 3)


@pytest.mark.parametrize(
    "mask",
    [
        Image.fromarray((np.arange(12).reshape(3, 4) % 3 == 1).astype(np.uint8)),
        Image.fromarray((np.arange(12).reshape(3, 4) % 3 == 1).astype(np.uint8) * 255),
        Image.fromarray(np.arange(12).reshape(3, 4) % 3 == 1),
        Image.fromarray((np.arange(12).reshape(3, 4) % 3 == 1).astype(np.uint16) * 1000),
    ],
)
def test_masks_are_where_the_one_channel_is_not_zero(mask: Image.Image) -> None:
    decoded = decode_mask(_encoded(mask), 3, 4)
    assert decoded.dtype == np.bool_
    assert np.array_equal(decoded, np.arange(12).reshape(3, 4) % 3 == 1)


def test_a_palette_mask_counts_its_indices_and_not_its_colours() -> None:
    mask = Image.fromarray(np.array([[0, 1], [2, 0]], dtype=np.uint8)).convert("P")
    mask.putpalette([255, 255, 255, 0, 0, 0, 9, 9, 9])
    assert np.array_equal(decode_mask(_encoded(mask), 2, 2), [[False, True], [True, False]])


@pytest.mark.parametrize(("size", "target"), [(8, 4), (4, 8), (9, 5), (5, 9), (7, 7)])
def test_masks_are_resized_to_the_nearest_pixel(size: int, target: int) -> None:
    mask = RNG.random((size, size)) < 0.5
    reference = Image.fromarray(mask.astype(np.uint8)).resize((target, target), Image.Resampling.NEAREST)
    assert np.array_equal(decode_mask(_encoded(Image.fromarray(mask)), target, target), np.asarray(reference) > 0)


def test_a_mask_of_several_channels_is_refused() -> None:
    with pytest.raises(BadInputError, match="several channels"):
        decode_mask(_encoded(Image.fromarray(COLOUR)), 9, 7)


def test_a_mask_must_have_the_size_of_its_image(tmp_path: Path) -> None:
    path = tmp_path / "mask.png"
    Image.fromarray(np.zeros((9, 8), dtype=np.uint8)).save(path)
    with pytest.raises(BadInputError, match="size of its image"):
        check_image(_encoded(Image.fromarray(COLOUR)), path)
