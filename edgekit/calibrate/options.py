"""What a recipe may say about calibration. Free of onnx."""

from __future__ import annotations

from dataclasses import dataclass

from edgekit.errors import BadInputError

__all__ = ["CONCATS", "ROUNDINGS", "SELECTIONS", "CalibrateOptions"]

SELECTIONS = ("balanced", "diverse")
ROUNDINGS = ("nearest", "learned")
CONCATS = ("own", "shared")


@dataclass(frozen=True)
class CalibrateOptions:
    """How ranges are found.

    Attributes:
        method: Calibrator: "minmax", "moving-average", "percentile", "entropy" or "mse"; "attribution-quick" and
            "attribution" have the map in their objective.
        percentile: Share of a tensor's values kept inside the range, in percent; "percentile" only.
        bins: Histogram bins of the histogram methods.
        images: At most this many calibration images, class-balanced where labels are known; 0 for all.
        batch_size: Images a run.
        exclude: Glob patterns of ONNX node names that stay in float.
        selection: How images are chosen from a folder: "balanced" over classes, or "diverse": balanced, and within a
            class such that their maps differ.
        pool: Images looked at for each one that "diverse" chooses.
        adjust: The graph may be changed into one that computes the same and loses less by rounding: images on the grid
            they were captured on, channels of like size. Training with quantisation after it needs False. Read by the
            attribution methods only, as are the keys below by "attribution" only.
        rounding: "nearest", or "learned": weights are rounded so that the layer's result stays.
        bias_correction: Mean errors of rounding are taken out of the biases.
        sweeps: Rounds of the search over ranges on the map itself, 0 for none.
        concat: "own": each tensor that a concatenation joins keeps its own scale; "shared": all of one concatenation
            get the widest, so that TensorRT need not round them again, at the cost of resolution. Not for the
            attribution methods, which choose scales for the map, and not with qat, which learns each of its own.
    """

    method: str = "percentile"
    percentile: float = 99.999
    bins: int = 2048
    images: int = 256
    batch_size: int = 16
    exclude: tuple[str, ...] = ()
    selection: str = "balanced"
    pool: int = 4
    adjust: bool = True
    rounding: str = "learned"
    bias_correction: bool = True
    sweeps: int = 1
    concat: str = "own"

    @property
    def adjusts_graph(self) -> bool:
        """Whether the method may change the graph before it rounds."""
        return self.adjust and self.method.startswith("attribution")

    def __post_init__(self) -> None:
        for holds, what, expected, found in (
            (50 < self.percentile <= 100, "percentile", "50 < percentile <= 100", self.percentile),
            (256 <= self.bins <= 65536, "bins", "256 to 65536", self.bins),
            (self.images >= 0, "images", "at least 0", self.images),
            (self.batch_size >= 1, "batch_size", "at least 1", self.batch_size),
            (self.selection in SELECTIONS, "selection", " or ".join(SELECTIONS), self.selection),
            (1 <= self.pool <= 64, "pool", "1 to 64", self.pool),
            (self.rounding in ROUNDINGS, "rounding", " or ".join(ROUNDINGS), self.rounding),
            (0 <= self.sweeps <= 16, "sweeps", "0 to 16", self.sweeps),
            (self.concat in CONCATS, "concat", " or ".join(CONCATS), self.concat),
            (
                self.concat == "own" or not self.method.startswith("attribution"),
                "concat",
                f"own with the method {self.method}, which chooses every scale for the map",
                self.concat,
            ),
        ):
            if not holds:
                raise BadInputError(
                    f"A recipe value is out of range: calibrate.{what}.", expected=expected, found=repr(found)
                )
