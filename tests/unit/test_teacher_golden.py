"""The golden stage: what the teacher said about held-out images, stored once and read without torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import networks
import numpy as np
import pytest
import torch
from exported import loaded
from networks import CASES
from torch import nn

from edgekit.attribution.spec import MapSpec
from edgekit.bundle.golden import read_golden
from edgekit.core.digests import digest_array
from edgekit.core.progress import NULL_OBSERVER, Observer
from edgekit.errors import BadInputError
from edgekit.interface.card import InputSpec, ModelCard
from edgekit.interface.preprocess import preprocess
from edgekit.teacher.checkpoint import LoadedModel, save_checkpoint
from edgekit.teacher.explain import Explainer, explain
from edgekit.teacher.golden import GoldenRequest, golden, teacher_answers
from edgekit.teacher.load_options import LoadOptions
from edgekit.teacher.methods.grad_cam import GRAD_CAM
from edgekit.teacher.options import MapOptions
from edgekit.teacher.tap import Tap

CASE = CASES["inverted"]
SIDE = CASE.side


@dataclass(frozen=True)
class Images:
    """Images in memory, as a golden set is made from."""

    array: np.ndarray
    labels: np.ndarray
    object_masks: np.ndarray | None = None
    prefix: str = "image"

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(f"{self.prefix}-{number}.png" for number in range(len(self.array)))

    @property
    def digests(self) -> tuple[str, ...]:
        return tuple(digest_array(image) for image in self.array)

    def pixels(self, height: int, width: int, observer: Observer) -> np.ndarray:
        assert (height, width) == self.array.shape[1:3]
        return self.array

    def masks(self, height: int, width: int) -> np.ndarray | None:
        return self.object_masks


@pytest.fixture
def images() -> Images:
    rng = np.random.default_rng(0)
    # More than one batch of the stage, and not a whole number of them.
    pixels = rng.integers(0, 256, size=(40, *SIDE, 3), dtype=np.uint8)
    return Images(pixels, rng.integers(0, 4, size=40), rng.random((40, *SIDE)) > 0.7)


@pytest.fixture
def request_(images: Images, tmp_path: Path) -> GoldenRequest:
    teacher = loaded(CASE, None)
    spec = replace(teacher.card.input, channel_order="BGR", mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.2))
    save_checkpoint(tmp_path / "m.pt", replace(teacher, card=replace(teacher.card, input=spec)))
    return GoldenRequest(tmp_path / "m.pt", LoadOptions(arch=teacher.arch), images, MapOptions())


def test_the_set_is_what_the_teacher_said(request_: GoldenRequest, images: Images, tmp_path: Path) -> None:
    record = golden(request_, tmp_path / "golden")
    found = read_golden(tmp_path / "golden")
    model = CASE.make()
    prepared = torch.from_numpy(preprocess(images.array, found.card.input))
    expected = explain(model, "last", GRAD_CAM, prepared, torch.full((40,), -1, dtype=torch.int32))
    np.testing.assert_allclose(found.logits, expected.logits.numpy(), atol=1e-6)
    np.testing.assert_allclose(found.maps, expected.attribution.numpy(), atol=1e-6)
    assert found.map_spec == MapSpec("grad-cam", "last", 8, 8, True)
    assert found.card.input.channel_order == "BGR"
    assert np.array_equal(found.pixels, images.array)
    assert np.array_equal(found.labels, images.labels)
    assert np.array_equal(found.masks, images.object_masks)
    assert found.names == images.names
    assert found.digests == images.digests
    assert found.teacher == record.inputs["model"]
    hits = expected.logits.numpy().argmax(axis=1) == images.labels
    assert record.facts["teacher_accuracy"] == pytest.approx(hits.mean())
    assert record.facts["samples"] == 40
    assert (record.facts["tap"], record.facts["map"]) == ("last", [8, 8])
    assert record.facts["empty_maps"] == int((found.maps.reshape(40, -1) == 0).all(axis=1).sum())


@pytest.mark.parametrize(
    "change",
    [
        lambda images: replace(images, array=images.array ^ 1),
        lambda images: replace(images, labels=images.labels[::-1].copy()),
        lambda images: replace(images, prefix="other"),
        lambda images: replace(images, object_masks=~images.object_masks),
        lambda images: replace(images, object_masks=None),
    ],
    ids=["pixels", "labels", "names", "masks", "no masks"],
)
def test_made_once_and_again_when_the_images_change(
    request_: GoldenRequest, images: Images, tmp_path: Path, change: Callable[[Images], Images]
) -> None:
    first = golden(request_, tmp_path / "golden")
    assert golden(request_, tmp_path / "golden") == first
    changed = change(images)
    again = golden(replace(request_, images=changed), tmp_path / "golden")
    assert again.key != first.key
    found = read_golden(tmp_path / "golden")
    assert found.digests == changed.digests
    assert np.array_equal(found.labels, changed.labels)
    assert found.names == changed.names
    assert (found.masks is None) == (changed.object_masks is None)
    assert found.masks is None or np.array_equal(found.masks, changed.object_masks)


def test_made_again_for_another_tap(request_: GoldenRequest, tmp_path: Path) -> None:
    first = golden(request_, tmp_path / "golden")
    other = replace(request_, load=replace(request_.load, card={"tap": "project"}))
    assert golden(other, tmp_path / "golden").key != first.key
    assert read_golden(tmp_path / "golden").map_spec.tap == "project"


def test_without_labels_there_is_no_accuracy(request_: GoldenRequest, images: Images, tmp_path: Path) -> None:
    unknown = replace(images, labels=np.full(40, -1))
    record = golden(replace(request_, images=unknown), tmp_path / "golden")
    assert record.facts["teacher_accuracy"] is None
    assert "no labels" in record.facts["summary"]


def test_accuracy_is_that_of_the_labelled(request_: GoldenRequest, images: Images, tmp_path: Path) -> None:
    golden(request_, tmp_path / "all")
    top = read_golden(tmp_path / "all").teacher_class
    some = np.full(40, -1)
    some[:4] = top[:4]
    some[4] = (top[4] + 1) % 4
    record = golden(replace(request_, images=replace(images, labels=some)), tmp_path / "golden")
    assert record.facts["teacher_accuracy"] == pytest.approx(4 / 5)


def test_no_image_no_set(request_: GoldenRequest, images: Images, tmp_path: Path) -> None:
    none = Images(images.array[:0], images.labels[:0])
    with pytest.raises(BadInputError, match="at least one image"):
        golden(replace(request_, images=none), tmp_path / "golden")
    assert not (tmp_path / "golden").exists()


def test_one_image_is_a_set(request_: GoldenRequest, images: Images, tmp_path: Path) -> None:
    one = Images(images.array[:1], images.labels[:1])
    golden(replace(request_, images=one), tmp_path / "golden")
    assert len(read_golden(tmp_path / "golden")) == 1


class Broken(nn.Module):
    """A classifier whose maps, or answers, are of no use."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.features = nn.Conv2d(3, 2, 1)
        self.fc = nn.Linear(2, 2)
        self.how = how

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        a = self.features(x)
        if self.how == "never positive":
            return self.fc(-a.square().mean((2, 3)) * 0 - a.mean((2, 3)).abs())
        # Sound for the noise that a network is tried out with, not for a black image.
        return self.fc(a.mean((2, 3))) / x.amax((1, 2, 3))[:, None]


def broken_teacher(how: str, path: Path) -> LoadOptions:
    torch.manual_seed(0)
    model = Broken(how).eval().requires_grad_(False)
    model.features.weight.abs_()
    model.features.bias.fill_(1.0)
    # Both classes say minus the sum of what is positive: no evidence for either.
    model.fc.weight.fill_(1.0)
    card = ModelCard(InputSpec(*SIDE), ("a", "b"), tap="features")
    save_checkpoint(path, LoadedModel(model, card, "networks:Broken", {"how": how}, None, ""))
    return LoadOptions(arch="networks:Broken")


@pytest.mark.parametrize(
    ("how", "message"), [("never positive", "Every map of the teacher is empty"), ("divides", "answers are not finite")]
)
def test_a_teacher_without_a_yardstick(
    images: Images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str, message: str
) -> None:
    monkeypatch.setattr(networks, "Broken", Broken, raising=False)
    load = broken_teacher(how, tmp_path / "m.pt")
    images.array[20] = 0
    with pytest.raises(BadInputError, match=message) as caught:
        golden(GoldenRequest(tmp_path / "m.pt", load, images, MapOptions()), tmp_path / "golden")
    assert caught.value.where == "tap features"
    assert not (tmp_path / "golden").exists()


def test_batches_do_not_show(images: Images) -> None:
    teacher = loaded(CASE, "last")
    explainer = Explainer(GRAD_CAM, (Tap("last"),))

    def answers(start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        logits, (maps,) = teacher_answers(teacher, explainer, 1, images.array[start:stop], NULL_OBSERVER)
        return logits, maps

    apart = [np.concatenate(parts) for parts in zip(*(answers(at, at + 1) for at in range(40)), strict=True)]
    for one, other in zip(answers(0, 40), apart, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)
        assert one.dtype == np.float32
