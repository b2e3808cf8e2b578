"""Where a build keeps its stages."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

__all__ = ["BuildFolders"]

_PLACES = {"released": "release", "unverified": "device-candidate"}


@dataclass(frozen=True)
class BuildFolders:
    """The folders below a build's output.

    Attributes:
        output: The folder given with --output.
        trained_quantised: The recipe trains with quantisation, so that what ships comes out of the qat stage.
        elsewhere: Where the stages lie when it is not below the output.
    """

    output: Path
    trained_quantised: bool = False
    elsewhere: Path | None = None

    @property
    def stages(self) -> Path:
        """One folder a stage."""
        return self.elsewhere or self.output / "stages"

    @property
    def golden(self) -> Path:
        """The golden set."""
        return self.stages / "golden"

    @property
    def compress(self) -> Path:
        """The student's checkpoint and training history."""
        return self.stages / "compress"

    @property
    def export(self) -> Path:
        """The explained FP32 graph."""
        return self.stages / "export"

    @property
    def calibrate(self) -> Path:
        """Scale table and Q/DQ graph."""
        return self.stages / "calibrate"

    @property
    def qat(self) -> Path:
        """Student, explained graph, scale table and Q/DQ graph after training with quantisation."""
        return self.stages / "qat"

    @property
    def final_export(self) -> Path:
        """The explained FP32 graph of the network that ships."""
        return self.qat / "export" if self.trained_quantised else self.export

    @property
    def final_calibrate(self) -> Path:
        """Scale table and Q/DQ graph of the network that ships."""
        return self.qat / "calibrate" if self.trained_quantised else self.calibrate

    def engine(self, candidate: str) -> Path:
        """The built artifact of one candidate."""
        return self.stages / f"build-{candidate}"

    def verify(self, candidate: str) -> Path:
        """Scores and verdict of one candidate."""
        return self.stages / f"verify-{candidate}"

    def rehearsal(self, candidate: str) -> Path:
        """What the reference engine made of a graph whose engine a device has yet to build."""
        return self.stages / f"rehearsal-{candidate}"

    @property
    def latency(self) -> Path:
        """Latency of the candidates, side by side."""
        return self.stages / "latency"

    def bundle(self, status: str) -> Path:
        """Where the bundle goes: what was not released never stands under the name `release`."""
        return self.output / _PLACES.get(status, "candidate")
