"""What a recipe may say about calibration. Free of onnx."""

from __future__ import annotations

from dataclasses import dataclass

from edgekit.errors import BadInputError

__all__ = ["CalibrateOptions"]


@dataclass(frozen=True)
class CalibrateOptions:
    """How ranges are found.

    Attributes:
        method: Calibrator: "minmax", "percentile", "entropy" or "mse".
        percentile: Share of a tensor's values kept inside the range, in percent; "percentile" only.
        bins: Histogram bins of the histogram methods.
        images: At most this many calibration images, class-balanced where labels are known; 0 for all.
        batch_size: Images a run.
        exclude: Glob patterns of ONNX node names that stay in float.
    """

    method: str = "percentile"
    percentile: float = 99.999
    bins: int = 2048
    images: int = 256
    batch_size: int = 16
    exclude: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for holds, what, expected, found in (
            (50 < self.percentile <= 100, "percentile", "50 < percentile <= 100", self.percentile),
            (256 <= self.bins <= 65536, "bins", "256 to 65536", self.bins),
            (self.images >= 0, "images", "at least 0", self.images),
            (self.batch_size >= 1, "batch_size", "at least 1", self.batch_size),
        ):
            if not holds:
                raise BadInputError(
                    f"A recipe value is out of range: calibrate.{what}.", expected=expected, found=repr(found)
                )
