"""The classifier that comes with edgekit: it is what its training script says, and right for the right reason."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch

from edgekit.demo.images import CLASSES, DemoImage, draw_image
from edgekit.demo.network import ARCH, demo_arguments, demo_card, teacher_path
from edgekit.demo.textures import TEXTURES
from edgekit.demo.train import TrainOptions, accuracy, draw_split, train
from edgekit.interface.preprocess import preprocess
from edgekit.metrics.localisation import centre_prior, score_localisation
from edgekit.teacher.discovery import find_tap
from edgekit.teacher.explain import explain
from edgekit.teacher.loading import load_model
from edgekit.teacher.methods.grad_cam import GRAD_CAM

# A seed that neither training (1) nor the demo's folders (0) use.
FRESH, COUNT = 4242, 240


@pytest.fixture(scope="module")
def images() -> list[DemoImage]:
    return [draw_image(FRESH, "val", index) for index in range(COUNT)]


@pytest.fixture(scope="module")
def answers(images: list[DemoImage]) -> Mapping[str, Any]:
    loaded = load_model(teacher_path())
    x = torch.from_numpy(preprocess(np.stack([image.pixels for image in images]), loaded.card.input))
    explained = explain(loaded.model, "layer3", GRAD_CAM, x, torch.full((COUNT,), -1, dtype=torch.int32))
    return {"top": explained.logits.argmax(dim=1).numpy(), "maps": explained.attribution.numpy()}


def test_it_is_plain_data_and_small() -> None:
    content = torch.load(teacher_path(), weights_only=True)
    assert (content["arch"], content["arguments"], content["surgery"]) == (ARCH, demo_arguments(), None)
    assert teacher_path().stat().st_size < 2_000_000


def test_it_loads_with_the_card_of_the_demo() -> None:
    loaded = load_model(teacher_path())
    assert loaded.card == demo_card()
    assert find_tap(loaded.model, torch.zeros(1, *demo_card().input.shape)).name == demo_card().tap


def test_it_is_accurate_on_images_nobody_has_seen(images: list[DemoImage], answers: Mapping[str, Any]) -> None:
    labels = np.array([image.label for image in images])
    hits = answers["top"] == labels
    # 0.99 on 1200 images; three standard errors on 240 leave 0.97.
    assert hits.mean() > 0.96
    assert min(hits[labels == label].mean() for label in range(len(CLASSES))) > 0.85


def test_it_does_not_go_by_the_background(images: list[DemoImage], answers: Mapping[str, Any]) -> None:
    names = list(TEXTURES)
    against = np.array([names[image.label] != image.texture for image in images])
    hits = answers["top"] == np.array([image.label for image in images])
    assert against.sum() > 150
    assert hits[against].mean() > 0.95


def test_its_maps_lie_on_the_object(images: list[DemoImage], answers: Mapping[str, Any]) -> None:
    masks = np.stack([image.mask for image in images])
    own = score_localisation(answers["maps"], masks)
    blind = score_localisation(np.repeat(centre_prior(8, 8)[None], COUNT, axis=0), masks)
    assert own["pixel-auc"].mean() > 0.9
    # Objects stand in the middle more often than at the rim; where they do not, a blind guess shows itself.
    aside = np.array([np.hypot(*(np.argwhere(mask).mean(axis=0) - 31.5)) > 12 for mask in masks])
    assert aside.sum() > 40
    for name in ("pixel-auc", "pointing", "energy-inside"):
        assert own[name].mean() > blind[name].mean()
        assert own[name][aside].mean() > blind[name][aside].mean() + 0.1


def test_training_is_decided_by_its_seed() -> None:
    def weights(seed: int) -> bytes:
        buffer = io.BytesIO()
        torch.save(train(TrainOptions(images=96, epochs=2, batch_size=32, seed=seed)).state_dict(), buffer)
        return buffer.getvalue()

    first = weights(1)
    assert weights(1) == first
    assert weights(2) != first


def test_training_learns() -> None:
    """Enough to see that loss, labels and pixels belong together: a few images can be learnt by heart."""
    pixels, labels = draw_split(5, "broad", 48)
    model = train(TrainOptions(images=48, epochs=30, batch_size=16, learning_rate=0.05, seed=5))
    assert accuracy(model, pixels, labels) > 0.7
