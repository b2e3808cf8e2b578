"""What a recipe may say about export. Free of torch."""

from __future__ import annotations

from dataclasses import dataclass

from edgekit.errors import BadInputError
from edgekit.teacher.options import MapOptions

__all__ = ["ExportOptions"]


@dataclass(frozen=True)
class ExportOptions:
    """How the explained graph is written and checked.

    Attributes:
        method: Attribution method in the graph.
        classes: Maps an image gets at each tap, one a class; see `MapOptions`.
        class_choice: Which classes; see `MapOptions`.
        closed_form: Use the closed form of the map where the head is provably pooling and one linear layer.
        parity_tolerance: Largest allowed relative error of logits and maps between torch and ONNX, per sample:
            `max|difference| / max|torch|`.
        parity_images: Real images the check runs on.
        batch: The batch the graph takes, or 0 for any. An engine that cannot change its shapes wants a fixed one.
    """

    method: str = "grad-cam"
    classes: int = 1
    class_choice: str = "top"
    closed_form: bool = True
    parity_tolerance: float = 1e-4
    parity_images: int = 64
    batch: int = 0

    @property
    def maps(self) -> MapOptions:
        """Which maps the graph answers."""
        return MapOptions(self.method, self.classes, self.class_choice)

    def __post_init__(self) -> None:
        _ = self.maps  # refuses what is out of range
        if not (self.parity_tolerance > 0 and self.parity_images >= 1 and self.batch >= 0):
            raise BadInputError(
                "A recipe value is out of range: export.",
                expected="parity_tolerance above 0, parity_images at least 1 and batch at least 0",
                found=f"{self.parity_tolerance}, {self.parity_images} and {self.batch}",
            )
