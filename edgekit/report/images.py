"""Pictures of maps over images, as arrays and as encoded bytes.

Every map is divided by its own largest magnitude before it is drawn (`attribution.unit_max`): colours say where a map
looks, never how strong it is. Only positive evidence is drawn.
"""

from __future__ import annotations

import base64
import io
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from edgekit.attribution.normalise import unit_max
from edgekit.attribution.upsample import upsample_bilinear
from edgekit.errors import DefectError
from edgekit.report.colours import difference_colours, map_colours
from edgekit.report.optional import needs_package

__all__ = [
    "data_uri",
    "difference_over_grey",
    "difference_overlay",
    "enlarged",
    "map_over_grey",
    "outlined",
    "overlay",
    "png_bytes",
]

Pixels: TypeAlias = npt.NDArray[np.uint8]
Map: TypeAlias = npt.NDArray[np.floating[Any]]

# A cell of value 0 lets the whole image through, one of value 1 this share of the colour.
_OPACITY = 0.78
# Below the colours the image is grey and pale: its own colours must not be taken for the scale's.
_GREY_FLOOR, _GREY_SHARE = 40.0, 0.8
_STRIPE = 4
_LUMA = (0.299, 0.587, 0.114)
_JPEG_QUALITY = 82


def overlay(pixels: Pixels, values: Map) -> Pixels:
    """Lay a map over an image.

    Args:
        pixels: uint8 [H, W, 3], RGB.
        values: Floating [h, w], a raw map; brought to the image's size by `attribution.upsample_bilinear`.

    Returns:
        uint8 [H, W, 3]: the image in grey under viridis, the more opaque the stronger the map. A zero map leaves the
        grey image. Cells that are not finite are drawn as black and white stripes.

    Raises:
        DefectError: The arrays are not one image and one map.
    """
    _check_image(pixels)
    _check_map(values)
    finite = np.isfinite(values)
    # A broken cell must not decide the scale of the sound ones.
    large = upsample_bilinear(unit_max(np.where(finite, values, 0.0)[None]), *pixels.shape[:2])[0]
    strength = np.clip(large, 0.0, 1.0)
    mixed = _mix(_grey(pixels), map_colours(strength), _map_opacity(strength))
    return _striped(mixed, ~finite)


def difference_overlay(pixels: Pixels, teacher: Map, engine: Map) -> Pixels:
    """Lay the difference of two maps over an image: vermillion where the engine's is stronger, blue where weaker.

    Args:
        pixels: uint8 [H, W, 3], RGB.
        teacher: Floating [h, w], raw.
        engine: Floating [h, w], raw.

    Returns:
        uint8 [H, W, 3]. Each map is divided by its own largest magnitude first. Cells that are not finite in either
        are drawn as black and white stripes.

    Raises:
        DefectError: The arrays are not one image and two maps of one shape.
    """
    _check_image(pixels)
    _check_map(teacher)
    _check_map(engine)
    if teacher.shape != engine.shape:
        raise DefectError("Two maps of different shapes were compared.", found=f"{teacher.shape}, {engine.shape}")
    finite = np.isfinite(teacher) & np.isfinite(engine)
    scaled = [np.clip(unit_max(np.where(finite, values, 0.0)[None]), 0.0, None) for values in (teacher, engine)]
    large = upsample_bilinear(scaled[1] - scaled[0], *pixels.shape[:2])[0]
    mixed = _mix(_grey(pixels), difference_colours(large), _difference_opacity(large))
    return _striped(mixed, ~finite)


def map_over_grey(values: Map) -> npt.NDArray[np.float64]:
    """Colours of map values from 0 to 1 as `overlay` draws them over a middle grey, for legends: float64 [..., 3]."""
    return _mix(_middle_grey(values), map_colours(values), _map_opacity(values))


def difference_over_grey(values: Map) -> npt.NDArray[np.float64]:
    """The same of differences from -1 to 1, as `difference_overlay` draws them."""
    return _mix(_middle_grey(values), difference_colours(values), _difference_opacity(values))


def outlined(pixels: Pixels, mask: npt.NDArray[np.bool_]) -> Pixels:
    """Draw the border of a mask, white with black beside it so that it is seen on any image.

    Args:
        pixels: uint8 [H, W, 3].
        mask: bool [H, W].
    """
    inner = mask & ~_eroded(mask)
    outer = ~mask & ~_eroded(~mask)
    drawn = pixels.copy()
    drawn[outer] = 0
    drawn[inner] = 255
    return drawn


def enlarged(array: npt.NDArray[Any], least: int) -> npt.NDArray[Any]:
    """Repeat rows and columns so that neither side is below `least`, as few times as that takes.

    Pixels are repeated and never blended: what the network saw stays recognisable as such.

    Args:
        array: [H, W] or [H, W, channels].
        least: Pixels.
    """
    factor = max(1, -(-least // min(array.shape[:2])))
    return np.repeat(np.repeat(array, factor, axis=0), factor, axis=1)


def png_bytes(pixels: Pixels) -> bytes:
    """Encode uint8 [H, W, 3] as PNG; the same pixels give the same bytes with the same Pillow."""
    _check_image(pixels)
    with needs_package("Pillow", "images"):
        from PIL import Image

    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, format="PNG", optimize=True)
    return stream.getvalue()


def data_uri(pixels: Pixels, longest: int) -> str:
    """Encode an image for embedding, as JPEG: a report holds dozens, and lossless ones would make it tens of megabytes.

    Args:
        pixels: uint8 [H, W, 3].
        longest: Pixels; a larger image is shrunk so that its longer side has this many.
    """
    _check_image(pixels)
    with needs_package("Pillow", "images"):
        from PIL import Image

    image = Image.fromarray(pixels)
    if max(image.size) > longest:
        scale = longest / max(image.size)
        size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
        image = image.resize(size, Image.Resampling.BOX)
    stream = io.BytesIO()
    # Full colour resolution: at half of it the narrow bands of a map bleed into each other. Not optimised, for which
    # Pillow takes a buffer of a byte a pixel, and gives up where noise needs more.
    image.save(stream, format="JPEG", quality=_JPEG_QUALITY, subsampling=0)
    return "data:image/jpeg;base64," + base64.b64encode(stream.getvalue()).decode("ascii")


def _grey(pixels: Pixels) -> npt.NDArray[np.float64]:
    luma = pixels.astype(np.float64) @ np.array(_LUMA)
    return np.repeat((_GREY_FLOOR + _GREY_SHARE * luma)[..., None], 3, axis=2)


def _middle_grey(values: Map) -> npt.NDArray[np.float64]:
    return np.broadcast_to(_GREY_FLOOR + _GREY_SHARE * 127.5, (*values.shape, 3)).astype(np.float64)


def _map_opacity(strength: Map) -> npt.NDArray[np.float64]:
    return np.asarray(_OPACITY * np.sqrt(strength), dtype=np.float64)


def _difference_opacity(difference: Map) -> npt.NDArray[np.float64]:
    return np.asarray(_OPACITY * np.clip(np.abs(difference), 0.0, 1.0), dtype=np.float64)


def _mix(
    below: npt.NDArray[np.float64], above: npt.NDArray[np.float64], opacity: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    return below + opacity[..., None] * (above - below)


def _striped(picture: npt.NDArray[np.float64], broken: npt.NDArray[np.bool_]) -> Pixels:
    drawn = np.clip(np.rint(picture), 0, 255).astype(np.uint8)
    if broken.any():
        height, width = drawn.shape[:2]
        rows = np.arange(height) * broken.shape[0] // height
        columns = np.arange(width) * broken.shape[1] // width
        place = broken[rows[:, None], columns[None, :]]
        diagonal = (np.arange(height)[:, None] + np.arange(width)[None, :]) // _STRIPE % 2
        drawn[place] = np.where(diagonal[place] == 0, 0, 255)[:, None]
    return drawn


def _eroded(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """True where a pixel and its four neighbours are; beyond the image's edge everything counts as True."""
    padded = np.pad(mask, 1, constant_values=True)
    eroded: npt.NDArray[np.bool_] = mask & padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return eroded


def _check_image(pixels: Pixels) -> None:
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or 0 in pixels.shape:
        raise DefectError(
            "A picture was asked of something that is not an image.",
            expected="uint8 [H, W, 3]",
            found=f"{pixels.dtype} {list(pixels.shape)}",
        )


def _check_map(values: Map) -> None:
    if values.ndim != 2 or 0 in values.shape or not np.issubdtype(values.dtype, np.floating):
        raise DefectError(
            "A picture was asked of something that is not a map.",
            expected="floating [h, w]",
            found=f"{values.dtype} {list(values.shape)}",
        )
