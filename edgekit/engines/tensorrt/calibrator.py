"""The calibrator for the implicit INT8 path: it answers with a cache of our own scales, and never with images."""

from __future__ import annotations

from typing import Any

from edgekit.engines.tensorrt.binding import TensorRt
from edgekit.engines.tensorrt.calibration_cache import read_calibration_cache, version_digits
from edgekit.errors import BadInputError, UnavailableError

__all__ = ["make_calibrator"]


def make_calibrator(tensorrt: TensorRt, cache: bytes, where: str) -> Any:
    """An `IInt8EntropyCalibrator2`, the only kind that DLA accepts. It has to live until the build is done.

    TensorRT asks for batches where it does not take the cache; there are none, so that build fails instead of using
    scales that nobody chose. `asked_for_images` of the result tells that this happened.

    Args:
        tensorrt: A version that has calibrators.
        cache: The file's bytes.
        where: Its path, for messages.

    Raises:
        BadInputError: Not a cache, or one for another algorithm or TensorRT.
        UnavailableError: This TensorRT has no calibrators.
    """
    if not tensorrt.may_calibrate:
        raise UnavailableError(
            "This TensorRT takes no calibration cache.",
            expected="TensorRT 10 or before",
            found=f"TensorRT {tensorrt.text}",
            hint="build the Q/DQ graph: its scales are the same",
        )
    found = read_calibration_cache(cache, where)
    expected = (version_digits(tensorrt.version), "EntropyCalibration2")
    if (found.digits, found.algorithm) != expected:
        raise BadInputError(
            "The calibration cache was written for another TensorRT, which would calibrate anew.",
            where=where,
            expected="TRT-{}-{}".format(*expected),
            found=f"TRT-{found.digits}-{found.algorithm}",
            hint="write it again from the scale table for this TensorRT",
        )
    base: Any = tensorrt.module.IInt8EntropyCalibrator2

    class Calibrator(base):  # type: ignore[misc]
        def __init__(self) -> None:
            base.__init__(self)
            self.asked_for_images = False

        def get_batch_size(self) -> int:
            return 1

        def get_batch(self, names: list[str]) -> list[int] | None:  # noqa: ARG002
            self.asked_for_images = True
            return None

        def read_calibration_cache(self) -> bytes:
            return cache

        def write_calibration_cache(self, cache: Any) -> None:
            # Ours is the truth; what TensorRT made of it is not kept.
            del cache

    return Calibrator()
