"""What goes wrong in training and is named: losses, gradients, too few images, labels of several classes."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from training_runs import CARD, Images, Net, Recorder, drawn_images, plan, weights_of

from edgekit.compress.options import DistilOptions, MatchingOptions
from edgekit.compress.training.trainer import train
from edgekit.errors import BadInputError, EdgekitError

MULTI_LABEL = dataclasses.replace(CARD, task="multi-label")


class Brittle(Net):
    """Its loss is finite and one gradient is not: d sqrt(x)/dx at 0, times 0."""

    def __init__(self) -> None:
        super().__init__(seed=1)
        self.root = nn.Parameter(torch.zeros(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x) + 0 * self.root.sqrt()


def test_a_loss_that_is_not_finite_is_named_with_its_parts_and_its_step() -> None:
    student = Net(seed=1)
    with torch.no_grad():
        student.fc.bias[0] = math.nan
    with pytest.raises(BadInputError, match="diverged") as caught:
        train(student, Net(seed=2), drawn_images(40, 0), plan("ewa"))
    assert caught.value.where == "epoch 1 of 1, step 1 of 3"
    found = caught.value.found or ""
    assert found.startswith("loss nan: supervised nan, distillation 0, matching 0.0")


def test_a_beta_beyond_float32_is_seen_in_the_parts() -> None:
    with pytest.raises(BadInputError, match="diverged") as caught:
        train(Net(seed=1), Net(seed=2), drawn_images(40, 0), plan("swa", beta=1e40))
    assert (caught.value.found or "").startswith("loss inf: supervised 1.")
    assert "beta" in (caught.value.hint or "")


def test_a_gradient_that_is_not_finite_is_named_at_its_step_where_it_is_clipped() -> None:
    with pytest.raises(BadInputError, match="gradient of norm nan") as caught:
        train(Brittle(), Net(seed=2), drawn_images(40, 0), plan("none", clip_norm=1.0))
    assert caught.value.where == "epoch 1 of 1, step 1 of 3"


def test_a_gradient_that_is_not_finite_is_found_in_the_weights_otherwise() -> None:
    with pytest.raises(BadInputError, match="root is not finite") as caught:
        train(Brittle(), Net(seed=2), drawn_images(40, 0), plan("none", batch_size=40))
    assert caught.value.where == "end of epoch 1 of 1"


def test_a_training_set_of_one_image_is_refused() -> None:
    observer, several = Recorder(), Images(drawn_images(1, 0).pixels, np.array([[1, 0, 1]]))
    for images, settings, message in (
        (drawn_images(30, 0), {"max_images": 1}, "too few images to train on"),
        # One of each of two classes: neither can give its last.
        (drawn_images(30, 0), {"max_images": 2, "patience": 1}, "too few images to hold back"),
        (several, {}, "cannot teach"),
    ):
        card = MULTI_LABEL if images is several else CARD
        with pytest.raises(BadInputError, match=message):
            train(Net(1), Net(2), images, plan("none", card=card, **settings), observer)
    assert observer.steps == []


def test_a_student_whose_map_is_zero_everywhere_is_told() -> None:
    """No error: its answers are still learned. But no gradient of the matching term reaches a map that is zero."""
    observer, student = Recorder(), Net(1)
    with torch.no_grad():
        student.features[8].weight.zero_()
        student.features[8].bias.fill_(-1)
    (record,) = train(student, Net(2), drawn_images(32, 0), plan("swa"), observer)
    assert record.student_zero + record.teacher_zero == record.images == 32
    assert "student's map is zero on every image" in observer.notes[0]
    observer = Recorder()
    train(Net(1), Net(2), drawn_images(32, 0), plan("swa"), observer)
    assert observer.notes == []


def test_a_last_batch_of_one_is_left_out_and_two_images_are_enough() -> None:
    observer = Recorder()
    (record,) = train(Net(1), Net(2), drawn_images(17, 0), plan("swa", batch_size=4), observer)
    assert record.images == 16
    assert len(observer.steps) == 4
    pair = Images(drawn_images(2, 0).pixels, np.array([0, 2]))
    (record,) = train(Net(1), Net(2), pair, plan("swa", batch_size=4))
    assert record.images == 2


def test_a_beta_below_zero_is_refused() -> None:
    with pytest.raises(BadInputError, match=r"compress\.matching\.beta"):
        MatchingOptions(beta=-1)


def test_a_teacher_that_is_asked_for_its_answers_alone_must_have_the_classes() -> None:
    distilled = dataclasses.replace(plan("none"), distil=DistilOptions(weight=0.5))
    for options in (distilled, plan("none", patience=1)):
        with pytest.raises(BadInputError, match="teacher does not answer"):
            train(Net(1), Net(2, classes=4), drawn_images(20, 0), options)
    train(Net(1), Net(2, classes=4), drawn_images(20, 0), plan("none"))


def test_a_workplace_that_cannot_be_one_is_named_before_training(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("here", encoding="utf-8")
    observer = Recorder()
    with pytest.raises(EdgekitError, match=r"Could not"):
        train(Net(1), Net(2), drawn_images(20, 0), plan("none"), observer, workplace=tmp_path / "file")
    assert observer.steps == []


def test_images_that_show_several_classes_train_a_multi_label_network() -> None:
    images = drawn_images(48, 0)
    several = np.eye(3, dtype=np.int64)[images.labels]
    several[:8] = 0
    several[8:16, 1] = 1
    several[16] = -1
    history = train(
        Net(1),
        Net(2),
        Images(images.pixels, several),
        plan("swa", card=MULTI_LABEL, epochs=8, patience=8, held_back=0.2, learning_rate=0.1),
    )
    assert history[0].images + round(0.2 * 47) == pytest.approx(47, abs=2)
    assert history[-1].supervised < history[0].supervised
    assert all(record.agreement is not None for record in history)


def test_one_class_an_image_is_the_same_as_its_row_of_zeros_and_a_one() -> None:
    images = drawn_images(32, 0)
    rows = Images(images.pixels, np.eye(3, dtype=np.int64)[images.labels])
    found = []
    for each in (images, rows):
        student = Net(1)
        found.append((train(student, Net(2), each, plan("swa", card=MULTI_LABEL)), weights_of(student)))
    assert found[0] == found[1]
