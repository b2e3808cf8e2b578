"""A golden set for the small stored graph, worked out in numpy: a teacher that shares no code with any engine."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from edgekit.attribution.spec import MapSpec
from edgekit.bundle.golden import GoldenSet
from edgekit.interface.card import InputSpec, ModelCard
from edgekit.interface.preprocess import preprocess

GRAPH = Path(__file__).parent / "assets" / "tiny_explained.onnx"
OTHER_GRAPH = Path(__file__).parent / "assets" / "other_signature.onnx"
# The numbers in the graph; see tests/assets/build_graphs.py.
WEIGHT = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1], [-1, -1, 2]], dtype=np.float64)
BIAS = np.array([0, 0, 0, 0.25])
CARD = ModelCard(InputSpec(4, 4, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25)), ("a", "b", "c", "d"), tap="image")


def teacher_answers(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Logits [N, 4] and maps [N, 4, 4] of the own top-1 for prepared images: averaged, then one linear layer."""
    logits = images.astype(np.float64).mean(axis=(2, 3)) @ WEIGHT.T + BIAS
    alpha = WEIGHT[logits.argmax(axis=1)] / 16
    return logits, np.maximum(np.einsum("nc,nchw->nhw", alpha, images), 0)


def tiny_golden(count: int = 80, *, masks: bool = False, seed: int = 0) -> GoldenSet:
    """Random images and what the teacher says; masks cover the left half. Every label is right."""
    pixels = np.random.default_rng(seed).integers(0, 256, size=(count, 4, 4, 3), dtype=np.uint8)
    logits, maps = teacher_answers(preprocess(pixels, CARD.input))
    left = np.zeros((count, 4, 4), dtype=np.bool_)
    left[:, :, :2] = True
    return GoldenSet(
        card=CARD,
        map_spec=MapSpec("grad-cam", "image", 4, 4),
        pixels=pixels,
        labels=logits.argmax(axis=1).astype(np.int64),
        logits=logits.astype(np.float32),
        maps=maps.astype(np.float32),
        names=tuple(f"{number}.png" for number in range(count)),
        masks=left if masks else None,
        teacher="0" * 64,
    )
