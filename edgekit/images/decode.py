"""One image file to pixels, by one stated rule, and nothing that is not plainly an image.

The rule: the first frame; turned as its EXIF orientation says; any colour mode brought to 8-bit RGB, transparency
dropped and not blended (what training pipelines see); 16-bit grey keeps its high byte; resized bilinearly to the
network's size without keeping the aspect, and not touched where the size already fits.
"""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from edgekit.core.files import read_bytes
from edgekit.errors import BadInputError, UnavailableError

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["IMAGE_SUFFIXES", "check_image", "decode_image", "decode_mask"]

IMAGE_SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")

# Pillow would try every format it knows, EPS and its interpreter included.
_FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
# Refused by the header, before any pixel is decoded: 150 MB as RGB, more than any camera on a device sends.
_MAX_PIXELS = 50_000_000
# What Pillow's readers raise on hostile or damaged bytes, besides their own OSError.
_DAMAGE = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    IndexError,
    KeyError,
    TypeError,
    OverflowError,
    AttributeError,
    MemoryError,
    RuntimeError,
    struct.error,
    zlib.error,
    Warning,
)
_GREY_DEEP = ("I;16", "I;16L", "I;16B", "I;16N", "I")
_CONVERTIBLE = ("1", "L", "LA", "La", "P", "PA", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr")
_BILINEAR = 2  # PIL.Image.Resampling.BILINEAR, by value so that importing this module does not import Pillow


def decode_image(source: Path | bytes, height: int, width: int) -> npt.NDArray[np.uint8]:
    """Decode an image to the network's size.

    Args:
        source: A file, or the content of one.
        height: Rows of the result.
        width: Columns of the result.

    Returns:
        uint8 [height, width, 3], RGB.

    Raises:
        BadInputError: Not an image of a known format, damaged, truncated, of an unusable mode, or with more than 50
            million pixels.
        UnavailableError: Pillow is not installed.
    """
    image = _rgb(_opened(source), _where(source))
    if image.size != (width, height):
        image = image.resize((width, height), _BILINEAR)
    return np.array(image, dtype=np.uint8)


def decode_mask(source: Path | bytes, height: int, width: int) -> npt.NDArray[np.bool_]:
    """Decode an object mask: one channel (grey, palette index or single bit), non-zero on the object.

    Returns:
        bool [height, width], resized to the nearest pixel.

    Raises:
        BadInputError: As `decode_image`, or the image has several channels.
    """
    mask = _mask(_opened(source), _where(source))
    # Each output pixel takes the input pixel under its centre.
    rows = (np.arange(height) * 2 + 1) * mask.shape[0] // (2 * height)
    columns = (np.arange(width) * 2 + 1) * mask.shape[1] // (2 * width)
    return np.ascontiguousarray(mask[rows[:, None], columns[None, :]])


def check_image(source: Path | bytes, mask: Path | None = None) -> None:
    """Decode an image, and its mask, once and keep nothing: afterwards both are known to be whole and to fit.

    Raises:
        BadInputError: As `decode_image` and `decode_mask`, or the two differ in size.
    """
    image = _rgb(_opened(source), _where(source))
    if mask is None:
        return
    height, width = _mask(_opened(mask), str(mask)).shape
    if image.size != (width, height):
        raise BadInputError(
            "A mask does not have the size of its image.",
            where=str(mask),
            expected=f"{image.height} x {image.width}",
            found=f"{height} x {width}",
        )


def _where(source: Path | bytes) -> str | None:
    return str(source) if isinstance(source, Path) else None


def _opened(source: Path | bytes) -> Image.Image:
    """The first frame, decoded whole and turned upright."""
    try:
        from PIL import Image, ImageOps
    except ModuleNotFoundError as cause:
        raise UnavailableError(
            "Reading image files needs Pillow, which is not installed.", hint="pip install 'edgekit[images]'"
        ) from cause
    where = _where(source)
    data = read_bytes(source) if isinstance(source, Path) else source
    try:
        image = Image.open(io.BytesIO(data), formats=_FORMATS)
        if image.width * image.height <= _MAX_PIXELS:
            image.load()
            return ImageOps.exif_transpose(image)
    except (*_DAMAGE, Image.DecompressionBombError) as cause:
        raise BadInputError(
            "An image cannot be decoded.", where=where, found=(str(cause).splitlines() or [type(cause).__name__])[0]
        ) from cause
    raise BadInputError(
        "An image is too large.",
        where=where,
        expected=f"at most {_MAX_PIXELS} pixels",
        found=f"{image.height} x {image.width}",
    )


def _rgb(image: Image.Image, where: str | None) -> Image.Image:
    if image.mode == "RGB":
        return image
    if image.mode in _GREY_DEEP:
        return _grey_of_16_bits(image, where).convert("RGB")
    if image.mode not in _CONVERTIBLE:
        raise BadInputError(
            "An image has a colour mode that has no 8-bit meaning.",
            where=where,
            expected="grey, palette, RGB, RGBA, CMYK or YCbCr of 8 bits, or grey of 16 bits",
            found=image.mode,
        )
    return image.convert("RGB")


def _grey_of_16_bits(image: Image.Image, where: str | None) -> Image.Image:
    import PIL.Image

    # Pillow's own conversion clips at 255 instead of scaling, which turns almost every 16-bit image white.
    values = np.asarray(image)
    if values.min(initial=0) < 0 or values.max(initial=0) > 0xFFFF:
        raise BadInputError(
            "A grey image has values beyond 16 bits.", where=where, expected="0 to 65535", found=str(values.max())
        )
    return PIL.Image.fromarray((values.astype(np.uint16) >> 8).astype(np.uint8))


def _mask(image: Image.Image, where: str | None) -> npt.NDArray[np.bool_]:
    if len(image.getbands()) != 1:
        raise BadInputError(
            "A mask has several channels.",
            where=where,
            expected="one channel, non-zero on the object",
            found=image.mode,
        )
    object_pixels: npt.NDArray[np.bool_] = np.asarray(image) != 0
    return object_pixels
