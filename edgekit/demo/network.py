"""The demo's classifier: which network it is and where its weights lie."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edgekit.demo.images import CLASSES, SIDE
from edgekit.interface.card import InputSpec, ModelCard

__all__ = ["ARCH", "demo_arguments", "demo_card", "teacher_path"]

ARCH = "cifar_resnet"


def demo_arguments() -> dict[str, Any]:
    """What `ARCH` is called with: one block a stage, maps of 8x8 for images of 64x64."""
    return {"depth": 8, "classes": len(CLASSES), "widths": [16, 32, 64], "stem_stride": 2, "shortcut": "B"}


def demo_card() -> ModelCard:
    """How the demo's classifier is fed, and what its answers mean."""
    spec = InputSpec(height=SIDE, width=SIDE, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
    return ModelCard(input=spec, classes=CLASSES, tap="layer3")


def teacher_path() -> Path:
    """The trained classifier that comes with edgekit, an edgekit checkpoint."""
    return Path(__file__).with_name("teacher.pt")
